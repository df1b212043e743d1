"""Entries of other programs: what Gearshift has no name for leaves as it came, byte for byte."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from redis import Redis as Client
from support.waiting import redrive_all, take

import gearshift
from gearshift_redis.wire import message_of

from .conftest import OpenBus

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]

ENTRIES: list[dict[bytes, bytes]] = [
    {
        b"z": b"\xff",
        b"body": b"\0\xff",
        b"key": b"\xff\x01",
        b"a": b"",
        b"\xfe": b"odd",
        b"id": b"",
    },
    {b"task": b"no body at all", b"type": b"\xff"},
    {b"body": b"{}", b"key": b""},
]


def one(consumer: gearshift.Consumer[Any]) -> gearshift.Delivery[Any]:
    """The next delivery."""
    (delivery,) = take(consumer, 1)
    return delivery


@pytest.mark.parametrize("name", ["a", "\ufffd", "tenant", "acme", "key", "b"])
def test_a_message_says_which_headers_it_has_as_if_it_were_read(name: str) -> None:
    """Also of a name that is no UTF-8, and of what is in its bytes and is no header."""
    packed = msgspec.msgpack.encode([("tenant", "acme")])
    entry = {b"a": b"", b"\xfe": b"odd", b"key": b"b", b"gearshift-headers": packed}
    message = message_of(entry, b"body")
    has_it = message.has_header(name)
    assert has_it == (name in message.headers)
    assert has_it == (name in ("a", "\ufffd", "tenant"))


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_redriven_entry_is_the_one_that_came(
    open_bus: OpenBus, raw: Client, name: str, entry: dict[Any, Any]
) -> None:
    """Every field in its order; retried, dead, sent on and redriven."""
    stream = f"theirs-{name}"
    raw.xgroup_create(stream, "g", "0", mkstream=True)
    raw.xadd(stream, entry)
    bus = open_bus(f'native.redis = {{ stream = "{stream}" }}')
    with bus.consumer(name, group="g") as consumer:
        one(consumer).retry(delay_s=0.0)
        one(consumer).retry(delay_s=0.1)
        delivery = one(consumer)
        assert delivery.attempt == 3
        bus.producer(name).send(delivery.message)
        delivery.reject("no")
        one(consumer).ack()
    redrive_all(bus, name, 1)
    answer: Any = raw.xrange(stream)
    assert [list(fields.items()) for _, fields in answer] == [list(entry.items())] * 3


@pytest.mark.parametrize("key", [b"\xff\x01", "", "x" * 300], ids=repr)
def test_any_key_comes_back(open_bus: OpenBus, name: str, key: str | bytes) -> None:
    """Binary, empty and long ones."""
    bus = open_bus()
    bus.producer(name).send(b"m", key=key)
    assert one(bus.consumer(name, group="g")).key == key
