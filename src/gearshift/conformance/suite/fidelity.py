"""What arrives is what was sent, to the byte."""

from __future__ import annotations

from gearshift.conformance.behaviour import Area, on_channel
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer

_BODIES = {
    "empty": b"",
    "every byte": bytes(range(256)) * 3,
    "zeros": bytes(1000),
    "utf-8": "žluťoučký \N{PILE OF POO}".encode(),
    "json": b'{"a": [1, 2.5, null]}',
}


@on_channel(Area.FIDELITY, deliveries=5)
def bodies_arrive_to_the_byte(kit: Kit, channel: str) -> None:
    """Empty, binary, zeros, UTF-8 and JSON bodies."""
    producer = kit.producer(channel)
    for body in _BODIES.values():
        producer.send(body)


@on_channel(Area.FIDELITY, deliveries=6)
def keys_and_headers_arrive_as_sent(kit: Kit, channel: str) -> None:
    """No key and any key; str, bytes, int and bool headers, repeated names in their order."""
    producer = kit.producer(channel)
    producer.send(key=None)
    producer.send(key="k" * 255)
    producer.send(key="ключ / with spaces")
    producer.send(headers={"text": "ž\0z", "raw": b"\x00\xff", "true": True, "false": False})
    producer.send(headers={"least": -(2**63), "most": 2**63 - 1, "zero": 0, "empty": ""})
    producer.send(headers=[("a", "1"), ("b", "x"), ("a", "2"), ("a", b"3")])


@on_channel(Area.FIDELITY, deliveries=2)
def properties_arrive_as_sent(kit: Kit, channel: str) -> None:
    """Id, content type, timestamp, correlation id, reply address and type."""
    producer = kit.producer(channel)
    sent = producer.send(
        b"<a/>",
        id="order-7/ü",
        content_type="application/xml; charset=utf-8",
        timestamp_ms=1_700_000_000_123,
        correlation_id="c-1",
        reply_to="answers",
        type="order.created",
    )
    kit.require(sent.id == "order-7/ü", "changed", f"the receipt has id {sent.id!r}")
    producer.send({"plain": "value"})
    consumer = kit.consumer(channel)
    for delivery in kit.take(consumer, 2):
        if delivery.id == sent.id:
            stamp = delivery.message.timestamp_ms
            kit.require(
                stamp in (1_700_000_000_123, 1_700_000_000_000),
                "changed",
                f"the timestamp came as {stamp}",
            )
        consumer.ack(delivery)


@on_channel(Area.FIDELITY, capability="max_message_bytes", deliveries=2)
def a_message_of_the_largest_size_passes(kit: Kit, channel: str) -> None:
    """At the declared limit, and one byte below, it is stored and delivered."""
    producer = kit.producer(channel)
    limit = kit.capabilities.max_message_bytes
    for size in (limit - 1, limit):
        producer.send(bytes(size), timeout_s=kit.patience_s)
    consumer = kit.consumer(channel, prefetch=1)
    for _ in range(2):
        kit.ack(consumer, 1)


def _send_none(kit: Kit, channel: str, _: RecordingConsumer) -> None:
    kit.producer(channel).send(None, key="k")


@on_channel(Area.FIDELITY, capability="tombstone", refused=_send_none, deliveries=2)
def a_message_without_body_stays_one(kit: Kit, channel: str) -> None:
    """None arrives as None, and b'' as b''."""
    producer = kit.producer(channel)
    producer.send(None, key="k")
    producer.send(b"", key="k")
