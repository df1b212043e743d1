"""What travels: standard properties for plain clients, and everything comes back as it was."""

from __future__ import annotations

import decimal
import time

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import take

from gearshift.errors import InvalidMessage

from .conftest import OpenBus, take_raw

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


def test_a_plain_client_finds_everything_under_its_standard_name(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Id, type, content type, correlation, reply address and time are AMQP properties."""
    producer = open_bus().producer(name)
    producer.send(
        {"n": 1},
        key="ada",
        id="id-1",
        headers={"text": "ü", "number": 2**40, "flag": True, "bytes": b"\xff\x00"},
        timestamp_ms=1_700_000_000_123,
        correlation_id="c-1",
        reply_to="answers",
        type="order.created",
    )
    properties, body = take_raw(raw, f"{name}.default")
    assert body == b'{"n":1}'
    assert properties.message_id == "id-1"
    assert properties.content_type == "application/json"
    assert properties.timestamp == 1_700_000_000
    assert properties.correlation_id == "c-1"
    assert properties.reply_to == "answers"
    assert properties.type == "order.created"
    assert properties.delivery_mode == 2
    properties.headers.pop("x-delivery-count", None)  # the queue's own
    assert properties.headers == {
        "text": "ü",
        "number": 2**40,
        "flag": True,
        "bytes": b"\xff\x00",
        "timestamp_in_ms": 1_700_000_000_123,
    }


def test_a_plain_message_is_received_as_far_as_it_goes(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """No id, no type, foreign header types: nothing is invented and nothing fails."""
    bus = open_bus()
    consumer = bus.consumer(name)
    price = decimal.Decimal("1.5")
    headers = {"list": [1, "two"], "none": None, "price": price, "table": {"a": 1}}
    raw.basic_publish(name, "", b"\xfe", pika.BasicProperties(headers=headers))
    (delivery,) = take(consumer, 1)
    assert (delivery.id, delivery.key, delivery.body) == (None, None, b"\xfe")
    assert (delivery.attempt, delivery.redelivered) == (1, False)
    assert delivery.message.content_type is None
    assert delivery.message.timestamp_ms is None
    assert delivery.headers.pairs == (
        ("list", 1),
        ("list", "two"),
        ("none", "None"),
        ("price", "1.5"),
        ("table", "{'a': 1}"),
    )


def test_what_the_broker_adds_is_neither_shown_nor_sent_on(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """x-death of a message that was dead-lettered on its way is stripped, also from its retries."""
    raw.queue_declare(
        f"{name}-before", arguments={"x-message-ttl": 1, "x-dead-letter-exchange": name}
    )
    bus = open_bus(f"[channels.{name}]\nretry_delay_s = 0.0")
    consumer = bus.consumer(name)
    raw.basic_publish("", f"{name}-before", b"{}", pika.BasicProperties(headers={"own": "kept"}))
    (delivery,) = take(consumer, 1)
    assert delivery.headers.pairs == (("own", "kept"),)
    delivery.retry(delay_s=0.3)
    (delivery,) = take(consumer, 1)
    assert delivery.headers.pairs == (("own", "kept"),)
    bus.close()
    properties, _ = take_raw(raw, f"{name}.default")
    deaths = properties.headers.get("x-death", [])
    assert [death["queue"] for death in deaths] == [f"{name}.default:retry-1s"]


def test_time_is_now_unless_it_is_given(open_bus: OpenBus, name: str) -> None:
    """To the millisecond, although AMQP has whole seconds."""
    bus = open_bus()
    before = time.time_ns() // 1_000_000
    bus.producer(name).send({})
    (delivery,) = take(bus.consumer(name), 1)
    sent_ms = delivery.message.timestamp_ms
    assert sent_ms is not None
    assert before <= sent_ms <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("header", ["x-death", "CC", "BCC", "timestamp_in_ms", "x-delivery-count"])
def test_headers_that_steer_the_broker_are_refused(
    open_bus: OpenBus, name: str, header: str
) -> None:
    """They would route, count or time the message behind our back; the next send works."""
    producer = open_bus().producer(name)
    with pytest.raises(InvalidMessage, match=header):
        producer.send({}, headers={header: "x"})
    producer.send({})
