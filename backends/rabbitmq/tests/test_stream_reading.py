"""What is read of a stream: windows by size, each partition apart, what retention has taken."""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Sequence
from typing import Any, cast

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from support.waiting import ack_all, take, until

import gearshift
from gearshift import Start
from native_brokers import RabbitMQ

from .conftest import OpenBus, stream

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def sent_to(rabbitmq: RabbitMQ, name: str) -> int:
    """Bytes that the broker has sent to the one consumer of the stream."""
    text = rabbitmq.text("rabbit_networking:connection_info_all([send_oct, client_properties])")
    (consumer,) = [one for one in text.split("{send_oct,") if f"stream consumer {name}/" in one]
    return int(consumer.partition("}")[0])


def test_large_messages_of_a_stream_stay_with_the_broker(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """About ``prefetch_bytes`` are unsettled and as much waits; the consumer gets all of them."""
    bus = open_bus(stream(name, "partitions = 2\nprefetch_bytes = 8388608"))
    producer = bus.producer(name)
    for number in range(60):  # one by one, as a stream sends whole chunks
        producer.send(bytes([number]) * 1_000_000)
    with bus.consumer(name, group="g") as consumer:
        (first,) = take(consumer, 1)
        time.sleep(2.0)  # what is proved here is that no more comes
        assert 2_000_000 < sent_to(rabbitmq, name) < 25_000_000
        found = [first.body]
        first.ack()
        while len(found) < 60:
            (one,) = take(consumer, 1)
            found.append(one.body)
            one.ack()
    assert sorted(body[0] for body in found if body) == list(range(60))


def test_small_messages_of_a_stream_come_in_numbers(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """Once their size is known, as many as ``prefetch`` allows wait beside those in hand."""
    bus = open_bus(stream(name, "partitions = 1"))
    producer = bus.producer(name)
    for _ in range(300):
        producer.send(bytes(1000))
    with bus.consumer(name, group="g") as consumer:
        take(consumer, 1)
        assert until(lambda: sent_to(rabbitmq, name) > 190_000)
        assert sent_to(rabbitmq, name) < 290_000


def test_a_subscription_without_an_answer_holds_up_no_other_partition(
    open_bus: OpenBus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 4.3 answers late for as long as another node stands still."""
    consume = Channel.basic_consume

    def unanswered(channel: Channel, queue: str, *given: Any, **named: Any) -> str | None:
        return "" if queue == f"{name}:0" else consume(channel, queue, *given, **named)

    monkeypatch.setattr(Channel, "basic_consume", unanswered)
    bus = open_bus(stream(name))
    bus.producer(name).send_many(range(20), key_by=str)
    sent = [number for number in range(20) if zlib.crc32(str(number).encode()) % 2]
    with bus.consumer(name, group="g") as consumer:
        assert ack_all(take(consumer, len(sent))) == sent


def test_a_reader_from_the_end_on_misses_nothing_while_more_is_asked_for(
    open_bus: OpenBus, name: str
) -> None:
    """Where nothing has come yet, there is no offset to go on from: the subscription stays."""
    bus = open_bus(stream(name, "partitions = 4"))
    producer = bus.producer(name)
    with bus.consumer(name, ephemeral=True, start="latest") as consumer:
        consumer.ready()
        found: list[object] = []
        for number in range(40):
            producer.send(number)
            found += [delivery.value for delivery in consumer.receive(40, timeout_s=0.02)]
        while len(found) < 40:
            found += ack_all(take(consumer, 1))
    assert sorted(cast(list[int], found)) == list(range(40))


def test_order_of_a_stream_is_kept_while_the_size_of_messages_changes(
    open_bus: OpenBus, name: str
) -> None:
    """One subscription gives way to another again and again; each message comes once."""
    bus = open_bus(stream(name, "partitions = 1\nprefetch_bytes = 262144"))
    sizes = itertools.cycle([10] * 200 + [60_000] * 20)
    bodies = [b"%d " % n + bytes(next(sizes)) for n in range(2_000)]
    bus.producer(name).send_many(bodies)
    with bus.consumer(name, group="g") as consumer:
        found: list[bytes | None] = []
        while len(found) < len(bodies):
            for delivery in take(consumer, 1):
                found.append(delivery.body)
                delivery.ack()
    assert found == bodies


def test_work_longer_than_the_brokers_limit_keeps_its_partition(
    open_bus: OpenBus, name: str, hasty: float
) -> None:
    """What waits behind it is read again; the slow delivery's ack counts, and the order stays."""
    bus = open_bus(stream(name, "partitions = 1"))
    consumer = bus.consumer(name, group="g", prefetch=2)
    bus.producer(name).send_many(range(20))
    values: list[object] = []
    for number in range(20):
        (delivery,) = take(consumer, 1)
        if number in (0, 10):
            time.sleep(4 * hasty)  # what is proved here is that time passes
        values += ack_all([delivery])
    assert values == list(range(20))
    consumer.flush()
    assert bus.stats().receiving[0].reconnects == 0


def short_stream(name: str) -> str:
    """One partition that keeps about ten messages of 100 bytes."""
    return stream(
        name,
        "partitions = 1\n"
        "native.rabbitmq = { stream_max_bytes = 3000, stream_segment_bytes = 1000 }",
    )


def send_one_by_one(bus: gearshift.Bus, name: str, count: int) -> None:
    """A segment ends between chunks only, and what is sent together may be one chunk."""
    producer = bus.producer(name)
    for number in range(count):
        producer.send({"n": number, "fill": "x" * 80})


def oldest(raw: BlockingChannel, queue: str) -> int:
    """The offset of the first message that is still there."""
    looking = raw.connection.channel()
    looking.basic_qos(prefetch_count=1)
    found: list[int] = []

    def note(_: object, __: object, properties: pika.BasicProperties, ___: bytes) -> None:
        found.append(cast(dict[str, int], properties.headers)["x-stream-offset"])

    looking.basic_consume(queue, note, arguments={"x-stream-offset": "first"})
    while not found:
        raw.connection.process_data_events(1.0)
    looking.close()
    return found[0]


def numbers(deliveries: Sequence[gearshift.Delivery]) -> list[int]:
    """Ack them; what they were numbered."""
    return [cast(dict[str, int], value)["n"] for value in ack_all(deliveries)]


def told_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of messages that retention has deleted."""
    return [line for line in caplog.messages if "deleted by retention" in line]


@pytest.mark.parametrize("reopened", [True, False], ids=["away", "reading"])
def test_what_retention_has_taken_from_a_group_is_told_and_counted(
    rabbitmq: RabbitMQ,
    open_bus: OpenBus,
    raw: BlockingChannel,
    name: str,
    caplog: pytest.LogCaptureFixture,
    reopened: bool,
) -> None:
    """One warning and the number of offsets, whether the group was away or too slow; offsets that
    the broker uses for itself between messages are no loss."""
    bus = open_bus(short_stream(name))
    consumer = bus.consumer(name, group="g", prefetch=1)
    send_one_by_one(bus, name, 1)
    (before,) = take(consumer, 1)
    if reopened:
        before.ack()
        consumer.flush()
        consumer.close()
    send_one_by_one(bus, name, 200)
    assert until(lambda: oldest(raw, f"{name}:0") > 150)
    rabbitmq.evaluate("sys:get_state(osiris_retention), ok")  # it deletes no more meanwhile
    if reopened:
        consumer = bus.consumer(name, group="g", prefetch=1)
    else:
        before.ack()
    found = take(consumer, 1)
    while numbers(found[-1:]) != [199]:
        found += take(consumer, 1)
    skipped = [
        after.position.offset - one.position.offset - 1
        for one, after in itertools.pairwise([before, *found])
        if one.position and after.position
    ]
    (stats,) = bus.stats().receiving
    assert stats.skipped == max(skipped)
    assert sum(gap > 0 for gap in skipped) > 1  # one is the loss; the broker's own make the others
    (warning,) = told_of(caplog)
    assert f"{name!r}, group 'g', partition 0: {stats.skipped} messages" in warning


def test_a_reader_goes_on_whose_place_retention_deletes(open_bus: OpenBus, name: str) -> None:
    """RabbitMQ gives it nothing ever again, so it has to ask anew."""
    bus = open_bus(short_stream(name))
    consumer = bus.consumer(name, group="g", prefetch=1)
    for _ in range(3):
        send_one_by_one(bus, name, 1)
        (before,) = take(consumer, 1)
        send_one_by_one(bus, name, 200)
        before.ack()
        while numbers(take(consumer, 1)) != [199]:
            pass


def test_a_new_group_of_a_stream_that_was_cut_has_lost_nothing(
    open_bus: OpenBus, raw: BlockingChannel, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It asked for what is there; so does one that goes back to the beginning."""
    bus = open_bus(short_stream(name))
    send_one_by_one(bus, name, 100)
    assert until(lambda: oldest(raw, f"{name}:0") > 50)
    with bus.consumer(name, group="g") as consumer:
        first = numbers(take(consumer, 1))
        consumer.seek(Start.at_offsets({0: 0}))
        assert numbers(take(consumer, 1)) == first != [0]
    assert told_of(caplog) == []


def test_the_broker_says_that_a_reader_has_had_everything(open_bus: OpenBus, name: str) -> None:
    """Behind what it has sent, so a slow one is not taken for one that has nothing more."""
    bus = open_bus(stream(name))
    bus.declare(name)
    with bus.inspect(name, group="g", prefetch=2) as consumer:
        consumer.ready()
        assert until(consumer._drained)
        send_one_by_one(bus, name, 3)
        waiting = take(consumer, 2)
        assert consumer._drained() is False
        ack_all(waiting)
        ack_all(take(consumer, 1))
        assert until(consumer._drained)
