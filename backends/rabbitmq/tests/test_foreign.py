"""Messages of other programs: what Gearshift has no name for leaves as it came, byte for byte."""

from __future__ import annotations

import struct
from typing import Any

import pika
import pytest
from pika import spec
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import redrive_all, take, until

import gearshift

from .conftest import OpenBus, ready_in, take_raw

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


def header(name: str, kind: bytes, data: bytes = b"") -> bytes:
    """A header on the wire."""
    return bytes([len(name)]) + name.encode() + kind + data


def long(data: bytes) -> bytes:
    """A long string on the wire."""
    return struct.pack(">I", len(data)) + data


#: Of every type that AMQP has, sorted by name as RabbitMQ may do.
HEADERS = b"".join((
    header("array", b"A", long(b"I" + struct.pack(">i", 1) + b"V")),
    header("byte", b"b", b"\xfe"),
    header("decimal", b"D", struct.pack(">Bi", 2, 12345)),
    header("double", b"d", struct.pack(">d", 1.5)),
    header("float", b"f", struct.pack(">f", 1.5)),
    header("int", b"I", struct.pack(">i", 5)),
    header("long", b"l", struct.pack(">q", 2**40)),
    header("none", b"V"),
    header("one", b"A", long(b"S" + long(b"alone"))),
    header("raw", b"x", long(b"\xff\x00")),
    header("short", b"s", struct.pack(">h", -7)),
    header("table", b"F", long(header("inner", b"V") + header("list", b"A", long(b"")))),
    header("text", b"S", long("ü".encode())),
    header("time", b"T", struct.pack(">Q", 1_700_000_000)),
    header("true", b"t", b"\1"),
    header("year 9999", b"T", struct.pack(">Q", 2**40)),
))  # fmt: skip


class Encoded(pika.BasicProperties):  # type: ignore[misc]
    """Properties that are sent as the bytes they are given."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self.encoded = encoded

    def encode(self) -> list[bytes]:
        return [self.encoded]


def encoded(headers: bytes = HEADERS, **properties: Any) -> Encoded:
    """All properties but user_id, on the wire, with ``headers`` as they are."""
    some: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 1,
        "priority": 7,
        "correlation_id": "",
        "reply_to": "answers",
        "expiration": "600000",
        "timestamp": 1_700_000_000,
        "type": "order.created",
        "app_id": "shop",
        "cluster_id": "c",
        **properties,
    }
    whole = pika.BasicProperties(**some, headers={}).encode()
    place = 1 + 2 * sum(some[name] is not None for name in ("content_type", "content_encoding"))
    whole[place] = long(headers)
    return Encoded(b"".join(whole))


@pytest.fixture
def wire(raw: BlockingChannel, monkeypatch: pytest.MonkeyPatch) -> BlockingChannel:
    """``raw``, whose properties are read as the bytes they are."""

    def decode(self: Any, data: bytes, offset: int = 0) -> Any:
        self.encoded = data[offset:]
        return self

    monkeypatch.setattr(spec.BasicProperties, "decode", decode)
    return raw


def next_of(wire: BlockingChannel, queue: str) -> tuple[bytes, bytes]:
    """The next message of ``queue``: its encoded properties and its body."""
    found: list[tuple[bytes, bytes]] = []

    def look() -> bool:
        method, properties, body = wire.basic_get(queue, auto_ack=True)
        if method is not None:
            found.append((properties.encoded, body))
        return bool(found)

    assert until(look), f"nothing in {queue}"
    return found[0]


def adopted(name: str, more: str = "") -> str:
    """A channel whose queue belongs to somebody else."""
    return f'[channels.{name}]\nnative.rabbitmq = {{ queue = "{name}" }}\n{more}'


def one(consumer: gearshift.Consumer[Any]) -> gearshift.Delivery[Any]:
    """The next delivery."""
    (delivery,) = take(consumer, 1)
    return delivery


@pytest.mark.parametrize("retries", [(), (0.0,), (0.2, 0.0, 0.2)], ids=["reject", "now", "later"])
def test_a_redriven_message_is_the_one_that_came(
    open_bus: OpenBus, raw: BlockingChannel, name: str, retries: tuple[float, ...],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Every property and every header type, also after retries of both sorts."""
    raw.queue_declare(name, durable=True)
    sent = encoded()
    raw.basic_publish("", name, b"{}", sent)
    with open_bus(adopted(name)) as bus:
        with bus.consumer(name) as consumer:
            for delay_s in retries:
                one(consumer).retry(delay_s=delay_s)
            one(consumer).reject("no")
        redrive_all(bus, name, 1)
    assert next_of(request.getfixturevalue("wire"), name) == (sent.encoded, b"{}")


def text(name: str, value: str) -> bytes:
    """A header that is text."""
    return header(name, b"S", long(value.encode()))


#: As the documentation of each has them: properties, and headers sorted by name.
HABITS = {
    "Spring AMQP": encoded(
        text("__ContentTypeId__", "java.lang.Object")
        + text("__TypeId__", "com.shop.Order")
        + text("spring_listener_return_correlation", "5f0e")
        + text("x-exception-message", "no such customer")
        + header("x-retries", b"I", struct.pack(">i", 2)),
        content_encoding="UTF-8", priority=0, delivery_mode=2, app_id=None, expiration=None,
        reply_to=None, cluster_id=None, correlation_id=None, timestamp=None, type=None,
    ),
    "MassTransit": encoded(
        text("MT-Activity-Id", "00-4bf9-01")
        + header("MT-Redelivery-Count", b"I", struct.pack(">i", 1))
        + header("MT-Scheduling-TokenId", b"V")
        + text("publishId", "1"),
        content_type="application/vnd.masstransit+json", content_encoding=None, priority=None,
        delivery_mode=2, message_id="0c2f0000-5d52", correlation_id="c", app_id=None, type=None,
    ),
    "FastStream": encoded(
        text("correlation_id", "6b"), content_encoding=None, message_id="6b", priority=None,
        app_id="faststream", expiration=None, cluster_id=None, delivery_mode=None, timestamp=None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("habit", HABITS)
def test_the_habits_of_other_frameworks_come_through(
    open_bus: OpenBus, raw: BlockingChannel, name: str, habit: str, request: pytest.FixtureRequest
) -> None:
    """What they wrote they read again, after a retry, a dead letter and a redrive."""
    raw.queue_declare(name, durable=True)
    raw.basic_publish("", name, b'{ "n": 1 }', HABITS[habit])
    with open_bus(adopted(name)) as bus:
        with bus.consumer(name) as consumer:
            one(consumer).retry(delay_s=0.2)
            delivery = one(consumer)
            assert delivery.value == {"n": 1}
            delivery.reject("no")
        redrive_all(bus, name, 1)
    found = next_of(request.getfixturevalue("wire"), name)
    assert found == (HABITS[habit].encoded, b'{ "n": 1 }')


def test_a_message_that_is_sent_on_is_the_one_that_came(
    open_bus: OpenBus, raw: BlockingChannel, name: str, request: pytest.FixtureRequest
) -> None:
    """``send(delivery.message)`` keeps everything, ``replace`` all but what it replaces."""
    raw.queue_declare(name, durable=True)
    sent = encoded()
    raw.basic_publish("", name, b"{}", sent)
    with open_bus(adopted(name)) as bus, bus.producer(name) as producer:
        with bus.consumer(name) as consumer:
            delivery = one(consumer)
            delivery.ack()
        producer.send(delivery.message)
        producer.send(delivery.message.replace(body=b"[]", type="order.changed"))
    wire = request.getfixturevalue("wire")
    assert next_of(wire, name) == (sent.encoded, b"{}")
    assert next_of(wire, name) == (encoded(type="order.changed").encoded, b"[]")


def test_what_a_message_has_no_field_for_can_be_looked_at(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Headers read like what they are, and the properties stand in ``message.native``."""
    raw.queue_declare(name, durable=True)
    raw.basic_publish("", name, b"{}", encoded())
    delivery = one(open_bus(adopted(name)).consumer(name))
    shown = dict(delivery.headers)
    assert {name: shown[name] for name in ("double", "float", "decimal", "none", "short")} == {
        "double": "1.5", "float": "1.5", "decimal": "123.45", "none": "None", "short": -7,
    }  # fmt: skip
    native = delivery.message.native
    assert native is not None
    assert native.properties == {
        "delivery_mode": 1, "priority": 7, "expiration": "600000", "app_id": "shop",
        "cluster_id": "c",
        "typed_headers": ["array", "decimal", "double", "float", "none", "one", "table", "time"],
    }  # fmt: skip
    assert delivery.message.content_encoding == "utf-8"


def test_an_expiration_ends_neither_a_retry_nor_a_dead_letter(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """They wait for longer than it says; redrive gives it back, and only then it acts again."""
    to_expired = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}-expired"}
    raw.queue_declare(f"{name}-expired")
    for queue in (name, f"{name}-clock"):
        raw.queue_declare(queue, durable=True, arguments=to_expired)
    sent = encoded(b"", expiration="1000")
    with open_bus(adopted(name)) as bus:
        with bus.consumer(name) as consumer:
            raw.basic_publish("", name, b"task", sent)
            one(consumer).retry(delay_s=1.5)
            delivery = one(consumer)
            native = delivery.message.native
            assert native is not None
            assert native.properties["expiration"] == "1000"
            delivery.reject("no")
        raw.basic_publish("", f"{name}-clock", b"tick", sent)
        # The broker says that a second is over.
        assert take_raw(raw, f"{name}-expired")[1] == b"tick"
        redrive_all(bus, name, 1)
    assert take_raw(raw, f"{name}-expired")[1] == b"task"


@pytest.mark.parametrize("key", [b"\xff\x01", "", "x" * 300, "ü" * 200, "a\0b"], ids=repr)
def test_any_key_comes_back(open_bus: OpenBus, name: str, key: str | bytes) -> None:
    """Also retried, dead and redriven: what a routing key cannot hold travels in a header."""
    bus = open_bus(f"[channels.{name}]\nretry_delay_s = 0.0")
    with bus.producer(name) as producer, bus.consumer(name) as consumer:
        producer.send(b"m", key=key)
        delivery = one(consumer)
        assert delivery.key == key
        assert repr(delivery.key).isprintable()
        producer.send(b"m", key=delivery.key)
        delivery.retry(delay_s=0.0)
        for _ in range(2):
            delivery = one(consumer)
            assert delivery.key == key
            delivery.reject("no")
    redrive_all(bus, name, 2)
    with bus.consumer(name) as consumer:
        assert {one(consumer).key for _ in range(2)} == {key}


@pytest.mark.parametrize(
    "native",
    ['queue = "{0}"', 'queue = "{0}", exchange = "{0}", exchange_type = "direct"'],
    ids=["queue", "direct"],
)
def test_a_routing_key_that_all_share_is_not_their_key(
    open_bus: OpenBus, raw: BlockingChannel, name: str, native: str
) -> None:
    """So that messages of one queue can be worked on side by side; redrive finds the way back."""
    raw.exchange_declare(name, "direct")
    raw.queue_declare(name, durable=True)
    raw.queue_bind(name, name, "celery")
    for number in range(8):
        raw.basic_publish(name, "celery", b"%d" % number)
    bus = open_bus(f"[channels.{name}]\nnative.rabbitmq = {{ {native.format(name)} }}")
    with bus.consumer(name, serial_keys=True) as consumer:
        deliveries = [one(consumer) for _ in range(8)]  # all of them in hand at once
        assert {delivery.key for delivery in deliveries} == {None}
        for delivery in deliveries:
            delivery.reject("no")
    redrive_all(bus, name, 8)
    with bus.consumer(name) as consumer:
        back = [one(consumer) for _ in range(8)]
        assert [delivery.body for delivery in back] == [b"%d" % number for number in range(8)]


def test_a_key_of_ours_travels_through_a_direct_exchange(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """There the routing key says nothing, so the key has a header of its own."""
    raw.exchange_declare(name, "direct")
    native = f'exchange = "{name}", exchange_type = "direct", binding_key = "k"'
    bus = open_bus(f"[channels.{name}]\nnative.rabbitmq = {{ {native} }}")
    consumer = bus.consumer(name)
    bus.producer(name).send({}, key="k")
    assert one(consumer).key == "k"


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "theirs"])
def test_the_owners_dead_letter_exchange_gets_what_is_rejected_without_ours(
    open_bus: OpenBus, raw: BlockingChannel, name: str, ours: bool
) -> None:
    """With ``dead_letter = false`` it gets the message; with dead letters of ours it gets none."""
    to_theirs = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}-theirs"}
    raw.queue_declare(f"{name}-theirs")
    raw.queue_declare(name, durable=True, arguments=to_theirs)
    raw.basic_publish("", name, b"bad")
    bus = open_bus(adopted(name, "" if ours else "dead_letter = false"))
    with bus.consumer(name) as consumer:
        one(consumer).reject("no")
    raw.basic_publish("", name, b"end")
    method, _, _ = raw.basic_get(name, auto_ack=False)
    raw.basic_nack(method.delivery_tag, requeue=False)
    dead = [take_raw(raw, f"{name}-theirs")[1] for _ in range(1 if ours else 2)]
    assert dead == ([b"end"] if ours else [b"bad", b"end"])


def test_a_decimal_does_not_break_the_connection_to_a_stream(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """There the broker fails over one, wherever it stands; as text it goes, and the rest as it
    was."""
    raw.queue_declare(name, durable=True)
    number = header("price", b"D", struct.pack(">Bi", 2, 12345))
    headers = header("order", b"F", long(number)) + number + header("none", b"V")
    raw.basic_publish("", name, b"task", encoded(headers))
    log = f'[channels.{name}-log]\nsemantics = "stream"\npartitions = 1\n'
    with open_bus(adopted(name, log)) as bus:
        delivery = one(bus.consumer(name))
        with bus.consumer(f"{name}-log", group="g", create=True) as reader:
            bus.producer(f"{name}-log").send(delivery.message)
            copy = one(reader)
            copy.ack()
        delivery.ack()
        bus.delete(f"{name}-log")
    assert copy.headers["price"] == delivery.headers["price"] == "123.45"
    assert copy.headers["order"] == delivery.headers["order"]
    assert copy.message.native is not None
    assert copy.message.native.properties["typed_headers"] == ["none"]


def test_headers_as_large_as_a_frame_holds_come_through(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Retried, dead and redriven: what is ours is left out, and no neighbour's copy is lost."""
    bus = open_bus(f'[channels.{name}]\ngroups = ["g"]\nretry_delay_s = 0.05')
    bus.declare(name)
    sizes = [10, 121_000, 130_800]
    for size in sizes:
        large = pika.BasicProperties(headers={"large": "x" * size})
        raw.basic_publish(name, "", b"m", large)

    def taken(attempt: int) -> list[gearshift.Delivery[Any]]:
        found = take(consumer, len(sizes))
        assert sorted(len(one.headers["large"]) for one in found) == sizes
        assert {one.attempt for one in found} == {attempt}
        return found

    with bus.consumer(name, group="g") as consumer:
        for one in taken(1):
            one.retry()
        for one in taken(2):
            one.reject("x" * 1000)
        dead = f"{name}.dead.default"
        assert until(
            lambda: not consumer.receive(timeout_s=0.1) and ready_in(raw, dead) == len(sizes)
        )
        redrive_all(bus, name, len(sizes))
        for one in taken(1):
            one.ack()
