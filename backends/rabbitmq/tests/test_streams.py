"""What a stream is on the broker: its queues, its groups' positions, its owners' locks."""

from __future__ import annotations

import zlib

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from support.waiting import ack_all, take, until

from gearshift.errors import TopologyConflict

from .conftest import OpenBus, ready_in, stream

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def read_raw(raw: BlockingChannel, queue: str, count: int) -> list[bytes]:
    """What a plain client reads of a stream queue from its beginning."""
    bodies = []
    raw.basic_qos(prefetch_count=100)
    reading = raw.consume(queue, arguments={"x-stream-offset": "first"}, inactivity_timeout=30)
    for method, _, body in reading:
        assert method is not None, "nothing comes"
        raw.basic_ack(method.delivery_tag)
        bodies.append(body)
        if len(bodies) == count:
            break
    raw.cancel()
    return bodies


def has_exchange(raw: BlockingChannel, exchange: str) -> bool:
    """Whether the broker has it."""
    try:
        raw.connection.channel().exchange_declare(exchange, passive=True)
    except ChannelClosedByBroker:
        return False
    return True


def position_of(raw: BlockingChannel, queue: str) -> bytes | None:
    """The one message of a group's position, which is given back: an owner that found none would
    begin anew."""
    method, _, body = raw.basic_get(queue)
    if method is not None:
        raw.basic_nack(method.delivery_tag, requeue=True)
        assert until(lambda: ready_in(raw, queue) == 1)
    return body


def test_a_plain_client_reads_the_partitions_of_a_stream(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Each partition is a stream queue; a key's messages are all in one, in their order."""
    producer = open_bus(stream(name)).producer(name)
    for number in range(20):
        producer.send(f"{number}", key="abcd"[: number % 4 + 1])
    expected: dict[int, list[bytes]] = {0: [], 1: []}
    for number in range(20):
        expected[zlib.crc32(b"abcd"[: number % 4 + 1]) % 2].append(b"%d" % number)
    assert all(expected.values())
    for partition, bodies in expected.items():
        assert read_raw(raw, f"{name}:{partition}", len(bodies)) == bodies


def test_a_position_is_one_durable_message_and_survives_its_consumer(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """What is acked is passed for good: the next consumer of the group begins behind it."""
    bus = open_bus(stream(name, "partitions = 1"))
    bus.producer(name).send_many(range(10))
    with bus.consumer(name, group="g") as first:
        ack_all(take(first, 4))
        first.flush()
    assert until(lambda: position_of(raw, f"{name}:0:g") == b"4")
    with bus.consumer(name, group="g") as second:
        assert ack_all(take(second, 6)) == [4, 5, 6, 7, 8, 9]


def test_a_position_that_somebody_looks_at_for_long_is_waited_for(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """A group that began anew, at the end here, would skip what came meanwhile."""
    bus = open_bus(stream(name, "partitions = 1"))
    producer = bus.producer(name)
    with bus.consumer(name, group="g", start="latest") as first:
        first.ready()
        producer.send(0)
        assert ack_all(take(first, 1)) == [0]
        first.flush()
    producer.send(1)
    assert until(lambda: ready_in(raw, f"{name}:0:g") == 1)
    method, _, _ = raw.basic_get(f"{name}:0:g")
    with bus.consumer(name, group="g", start="latest") as second:
        assert second.receive(timeout_s=5.0) == []
        raw.basic_nack(method.delivery_tag, requeue=True)
        assert ack_all(take(second, 1)) == [1]


@pytest.mark.parametrize("position", [b"0", b"time:0"], ids=["offset", "time"])
def test_a_position_keeps_the_note_of_a_death(
    open_bus: OpenBus, raw: BlockingChannel, name: str, position: bytes
) -> None:
    """Also where no offset is known yet; a close in between changes neither."""
    bus = open_bus(stream(name, "partitions = 1"))
    bus.producer(name).send_many(["killer", "other"])
    with bus.consumer(name, group="g") as consumer:
        consumer.ready()
    note = {"gearshift-note": "gearshift ab 2 0 1 1"}  # "ab" has died with the message at 0
    queue = f"{name}:0:g"
    raw.basic_publish("", queue, position, pika.BasicProperties(delivery_mode=2, headers=note))
    for _ in range(2):
        with bus.consumer(name, group="g") as consumer:
            (delivery,) = consumer.receive(5, timeout_s=30)
            assert (delivery.value, delivery.attempt) == ("killer", 3)
        assert position_of(raw, queue) == position


def test_partitions_have_one_owner_each_and_go_to_who_is_left(open_bus: OpenBus, name: str) -> None:
    """Two members share four partitions; when one closes, the other has them all."""
    bus = open_bus(stream(name, "partitions = 4"))
    first, second = (bus.consumer(name, group="g") for _ in range(2))
    assert until(lambda: len(first.partitions) == len(second.partitions) == 2)
    assert first.partitions | second.partitions == {0, 1, 2, 3}
    second.close()
    assert until(lambda: first.partitions == {0, 1, 2, 3})
    bus.producer(name).send_many(range(8))
    assert sorted(ack_all(take(first, 8))) == list(range(8))


def test_a_stream_that_was_left_half_made_is_completed(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Whoever began it died with one partition of two there; the next makes the other."""
    raw.exchange_declare(name, "direct", durable=True)
    raw.queue_declare(f"{name}:0", durable=True, arguments={"x-queue-type": "stream"})
    bus = open_bus(stream(name))
    bus.producer(name).send_many(range(4))
    with bus.consumer(name, group="g") as consumer:
        assert sorted(ack_all(take(consumer, 4))) == [0, 1, 2, 3]


def test_deleted_last_partitions_are_made_again(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """The stream says how many it was made with; its groups begin again in the new ones."""
    three = stream(name, "partitions = 3")
    bus = open_bus(three)
    bus.producer(name).send_many(range(12))
    with bus.consumer(name, group="g") as consumer:
        ack_all(take(consumer, 12))
        consumer.flush()
    bus.close()
    for partition in (1, 2):
        raw.queue_delete(f"{name}:{partition}")
    with pytest.raises(TopologyConflict, match="has 1 partitions, wanted 2"):
        open_bus(stream(name)).producer(name)
    bus = open_bus(three)
    bus.producer(name).send_many(range(12, 24))
    with bus.consumer(name, group="g") as consumer:
        assert sorted(ack_all(take(consumer, 12))) == list(range(12, 24))


def test_an_owners_lock_keeps_others_out(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """The lock is an exclusive queue: no other connection may even look at it."""
    bus = open_bus(stream(name, "partitions = 1"))
    bus.producer(name)
    consumer = bus.consumer(name, group="g")
    assert until(lambda: consumer.partitions == {0})
    with pytest.raises(ChannelClosedByBroker, match="RESOURCE_LOCKED"):
        raw.connection.channel().queue_declare(f"{name}:0:g:owner", passive=True)
    consumer.close()
    with pytest.raises(ChannelClosedByBroker, match="NOT_FOUND"):
        raw.connection.channel().queue_declare(f"{name}:0:g:owner", passive=True)


def test_a_deleted_stream_takes_its_positions_along(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Also those of groups that no configuration names: the next stream of that name is read
    from its beginning."""
    bus = open_bus(stream(name, "partitions = 1"))
    bus.producer(name).send_many(range(3))
    with bus.consumer(name, group="unlisted", create=True) as consumer:
        ack_all(take(consumer, 3))
    bus.delete(name)
    for queue in (f"{name}:0", f"{name}:0:unlisted", f"{name}:groups"):
        with pytest.raises(ChannelClosedByBroker, match="NOT_FOUND"):
            raw.connection.channel().queue_declare(queue, passive=True)
    later = open_bus(stream(name, "partitions = 1"))
    later.producer(name).send("new")
    with later.consumer(name, group="unlisted", create=True) as consumer:
        assert ack_all(take(consumer, 1)) == ["new"]


def test_a_deleted_stream_takes_a_group_along_that_has_no_position_yet(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Its only member left as soon as it had come."""
    bus = open_bus(stream(name))
    bus.producer(name)
    with bus.consumer(name, group="unlisted", create=True):
        assert until(lambda: has_exchange(raw, f"{name}:unlisted:members"))
    bus.delete(name)
    assert not has_exchange(raw, f"{name}:unlisted:members")


def test_retention_is_the_queues_own(open_bus: OpenBus, raw: BlockingChannel, name: str) -> None:
    """The broker is told age, size and segment: declaring with the same is no conflict, and
    another age is."""
    more = (
        "partitions = 1\nretention_s = 3600\n"
        "native.rabbitmq = { stream_max_bytes = 100000000, stream_segment_bytes = 1000000 }"
    )
    open_bus(stream(name, more)).producer(name)
    raw.queue_declare(
        f"{name}:0",
        durable=True,
        arguments={
            "x-queue-type": "stream",
            "x-max-age": "3600s",
            "x-max-length-bytes": 100000000,
            "x-stream-max-segment-size-bytes": 1000000,
            "x-queue-leader-locator": "balanced",
        },
    )
    with pytest.raises(TopologyConflict, match="another 'x-max-"):
        open_bus(stream(name, "partitions = 1\nretention_s = 60")).producer(name)


def test_the_number_of_partitions_cannot_change(open_bus: OpenBus, name: str) -> None:
    """A key's messages would go elsewhere: the error names both numbers."""
    open_bus(stream(name, "partitions = 2")).producer(name)
    with pytest.raises(TopologyConflict, match="has 2 partitions, wanted 3"):
        open_bus(stream(name, "partitions = 3")).producer(name)


def test_a_stream_queue_of_others_is_adopted(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """What a plain client has written comes, from the beginning, and what is sent reaches it."""
    raw.queue_declare(name, durable=True, arguments={"x-queue-type": "stream"})
    raw.confirm_delivery()
    raw.basic_publish("", name, b'"theirs"', pika.BasicProperties(content_type="application/json"))
    bus = open_bus(stream("mine", f'native.rabbitmq.queue = "{name}"'))
    bus.producer("mine").send("ours")
    with bus.consumer("mine", group="g") as consumer:
        assert ack_all(take(consumer, 2)) == ["theirs", "ours"]
    assert read_raw(raw, name, 2) == [b'"theirs"', b"ours"]
