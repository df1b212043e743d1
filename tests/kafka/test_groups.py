"""Members of consumer groups on a real Kafka: assignments, positions, where reading begins."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from kafka.conftest import OpenBus

import gearshift
from gearshift.driver import ChannelSpec, ConsumerSpec, Start, StartAt
from gearshift.errors import ConfigError, StaleDelivery, UnknownChannel
from gearshift_kafka.backend import KafkaBackend
from gearshift_kafka.settings import KafkaChannel, KafkaSettings

pytestmark = pytest.mark.broker


def one_partition(name: str) -> str:
    return f"[channels.{name}]\npartitions = 1"


def drain(consumer: gearshift.Consumer, count: int) -> list[object]:
    """Receive and ack until ``count`` values have come, or nothing comes for a while."""
    values: list[object] = []
    while len(values) < count and (deliveries := consumer.receive(50, timeout_s=20)):
        for delivery in deliveries:
            values.append(delivery.value)
            delivery.ack()
    return values


class _NoEvents:
    def assigned(self, partitions: object) -> None: ...

    def revoked(self, partitions: object) -> dict[int, int]:
        return {}

    def lost(self, partitions: object) -> None: ...


def test_a_blank_group_is_refused_before_there_is_a_client() -> None:
    """librdkafka aborts the process for it."""
    backend = KafkaBackend(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)))
    channel = ChannelSpec(
        name="c", semantics=gearshift.Semantics.STREAM, groups=(), native=KafkaChannel()
    )
    spec = ConsumerSpec(channel=channel, group=" ", member=" ", prefetch=1, ephemeral=True)
    with pytest.raises(ConfigError, match="blank"):
        backend.log_consumer(spec, _NoEvents())


def test_a_misspelt_channel_is_an_error_and_creates_no_topic(
    open_bus: OpenBus, name: str, raw_admin: AdminClient
) -> None:
    """Neither a consumer nor a producer makes the topic it cannot find."""
    bus = open_bus()
    with pytest.raises(UnknownChannel, match=name):
        bus.consumer(name, create=False)
    with pytest.raises(UnknownChannel, match=name):
        bus.producer(name, create=False)
    assert name not in raw_admin.list_topics(timeout=10).topics


def test_a_new_group_begins_with_the_oldest_message(open_bus: OpenBus, name: str) -> None:
    """What was sent before anybody had joined is received."""
    bus = open_bus(one_partition(name))
    bus.producer(name).send_many(range(10))
    assert drain(bus.consumer(name, group="late"), 10) == list(range(10))


def test_a_handler_slower_than_the_poll_interval_keeps_its_partition(
    open_bus: OpenBus, name: str
) -> None:
    """Polling goes on while a delivery is in hand, so its ack counts and nothing comes again."""
    profile = 'native.consumer = {"max.poll.interval.ms" = 6000}'
    bus = open_bus(one_partition(name), profile=profile)
    bus.producer(name).send_many(range(3))
    with bus.consumer(name, group="g", prefetch=1) as slow:
        (delivery,) = slow.receive(timeout_s=30)
        time.sleep(9)  # what is proved here is that time passes
        delivery.ack()
        assert slow.flush()
        (following,) = slow.receive(timeout_s=30)
        assert following.value == 1
    assert drain(bus.consumer(name, group="g"), 2) == [1, 2]


def test_settings_of_members_reach_no_client_that_is_none(open_bus: OpenBus, name: str) -> None:
    """Tails, retries and lag work with what only the newer group protocol takes."""
    queue = f"{name}-queue"
    bus = open_bus(
        f'{one_partition(name)}\n[channels.{queue}]\nsemantics = "queue"\ngroups = ["g"]',
        profile='native.consumer = {"max.poll.interval.ms" = 6000, "fetch.wait.max.ms" = 50}',
    )
    with bus.consumer(name, ephemeral=True) as tail:
        tail.ready(30)
        bus.producer(name).send("seen")
        assert [delivery.value for delivery in tail.receive(timeout_s=30)] == ["seen"]
    bus.producer(queue).send("retried")
    with bus.consumer(queue, group="g") as consumer:
        (first,) = consumer.receive(timeout_s=30)
        first.retry(delay_s=0.1)
        assert bus.groups(queue)[0].group == "g"
        (second,) = consumer.receive(timeout_s=30)
        assert second.attempt == 2
        second.ack()


def test_a_second_member_takes_over_and_no_message_is_lost(open_bus: OpenBus, name: str) -> None:
    """Acks from before a rebalance count or are stale; together both members get everything."""
    bus = open_bus(f"[channels.{name}]\npartitions = 4")
    with bus.producer(name) as producer:
        producer.send_many(range(200), key=str)
    first = bus.consumer(name, group="g", prefetch=20)
    in_hand = first.receive(20, timeout_s=30)
    second = bus.consumer(name, group="g", prefetch=20)
    acked: set[int] = set()
    stopped = threading.Event()

    def work(consumer: gearshift.Consumer) -> None:
        while not stopped.is_set():
            for delivery in consumer.receive(20, timeout_s=0.2):
                with contextlib.suppress(StaleDelivery):
                    delivery.ack()
                    acked.add(delivery.value)

    workers = [threading.Thread(target=work, args=(c,)) for c in (first, second)]
    workers[1].start()
    second.ready()
    for delivery in in_hand:
        with contextlib.suppress(StaleDelivery):
            delivery.ack()
            acked.add(delivery.value)
    workers[0].start()
    deadline = time.monotonic() + 60
    while len(acked) < 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped.set()
    for worker in workers:
        worker.join(30)
    assert acked == set(range(200))
    assert first.flush()
    assert second.flush()
    first.close()
    second.close()
    (status,) = [s for s in bus.groups(name) if s.group == "g"]
    assert status.lag == 0


@pytest.mark.parametrize("where", ["earliest", "offset", "time", "end"])
def test_seek_continues_where_it_was_told(open_bus: OpenBus, name: str, where: str) -> None:
    """The beginning, an offset, a moment and the end."""
    bus = open_bus(one_partition(name))
    producer = bus.producer(name)
    for number in range(5):
        producer.send(number, timestamp_ms=1_700_000_000_000 + number * 1000)
    consumer = bus.consumer(name, group="g")
    assert drain(consumer, 5) == [0, 1, 2, 3, 4]
    start = {
        "earliest": Start(),
        "offset": Start(StartAt.OFFSET, {0: 3}),
        "time": Start(StartAt.TIME, time_ms=1_700_000_001_500),
        "end": Start(StartAt.LATEST),
    }[where]
    consumer.seek(start)
    producer.send(5)
    first = {"earliest": 0, "offset": 3, "time": 2, "end": 5}[where]
    assert drain(consumer, 6 - first) == list(range(first, 6))


def test_partitions_that_are_added_are_read(
    open_bus: OpenBus, name: str, raw_admin: AdminClient
) -> None:
    """A consumer that was there before gets what the new partitions hold, from its beginning."""
    refresh = '{"topic.metadata.refresh.interval.ms" = 500}'
    profile = f"native.consumer = {refresh}\nnative.producer = {refresh}"
    bus = open_bus(f'[channels.c]\nnative.kafka.topic = "{name}"', profile=profile)
    maker = open_bus(one_partition(name))
    maker.producer(name).send("old")
    consumer = bus.consumer("c", group="g")
    assert drain(consumer, 1) == ["old"]
    raw_admin.create_partitions([NewPartitions(name, 4)])[name].result(20)
    with bus.producer("c") as producer:
        receipts = producer.send_many(range(40), key=str)
    assert {receipt.position.partition for receipt in receipts} == {0, 1, 2, 3}
    assert set(drain(consumer, 40)) == set(range(40))


def test_two_buses_in_one_process_do_not_meet(open_bus: OpenBus, name: str) -> None:
    """Closing one leaves the other's consumer and producer at work."""
    one, other = open_bus(one_partition(name)), open_bus(one_partition(name))
    one.producer(name).send("a")
    consumer = other.consumer(name, group="g")
    assert drain(consumer, 1) == ["a"]
    one.close()
    other.producer(name).send("b")
    assert drain(consumer, 1) == ["b"]
