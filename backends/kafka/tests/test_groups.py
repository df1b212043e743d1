"""Members of consumer groups on a real Kafka: assignments, positions, where reading begins."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from support.settings import profile_of, write_settings
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift.consumer import StartName
from gearshift.driver import ChannelSpec, ConsumerSpec, Place, Start, StartAt
from gearshift.errors import ConfigError
from gearshift.stats import ReceiveStats
from gearshift_kafka import topics
from gearshift_kafka.backend import Backend
from gearshift_kafka.leaving import leave_and_close
from gearshift_kafka.names import topic_partitions
from gearshift_kafka.settings import ChannelSettings, Settings
from native_brokers import Kafka

from .conftest import NoEvents, OpenBus

pytestmark = pytest.mark.broker


def one_partition(name: str) -> str:
    return f"[channels.{name}]\npartitions = 1"


def add_partitions(admin: AdminClient, topic: str) -> None:
    """Four in all. The broker's answer comes before it tells clients of them."""
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(20)
    assert until(lambda: len(admin.list_topics(topic, timeout=5).topics[topic].partitions) == 4)


def drain(consumer: gearshift.Consumer, count: int) -> list[object]:
    """Values of the next ``count`` deliveries, each acked; or more, if they came with them."""
    values: list[object] = []

    def has_all() -> bool:
        values.extend(ack_all(consumer.receive(50, timeout_s=1.0)))
        return len(values) >= count

    assert until(has_all), values
    return values


def test_a_blank_group_is_refused_before_there_is_a_client() -> None:
    """librdkafka aborts the process for it."""
    backend = Backend(Settings(bootstrap_servers=("127.0.0.1:1",)))
    channel = ChannelSpec(
        name="c", semantics=gearshift.Semantics.STREAM, groups=(), native=ChannelSettings()
    )
    spec = ConsumerSpec(channel=channel, group=" ", member=" ", prefetch=1, ephemeral=True)
    with pytest.raises(ConfigError, match="blank"):
        backend.log_consumer(spec, NoEvents())


def _queue_on(kafka: Kafka, name: str) -> dict[str, Any]:
    return {
        "profile": "k",
        "profiles": {"k": {"backend": "kafka", "bootstrap_servers": [kafka.url]}},
        "channels": {name: {"semantics": "queue", "groups": ["g"]}},
    }


def test_a_queue_is_declared_though_a_node_has_not_heard_of_its_topic(
    kafka: Kafka, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster the next question after its creation may go to such a node."""
    answers: list[list[int]] = []

    def ask(*arguments: Any) -> list[int]:
        answers.append(topic_partitions(*arguments))
        return answers[-1] if answers.count(answers[-1]) > 1 else []  # the first time

    monkeypatch.setattr(topics, "topic_partitions", ask)
    with gearshift.open(settings=_queue_on(kafka, name)) as bus:
        bus.declare(name, timeout_s=PATIENCE_S)
        assert any(answers)
        bus.delete(name)


def test_a_queue_is_deleted_with_what_a_node_has_not_heard_of(
    kafka: Kafka, raw_admin: AdminClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever deletes it may ask such a node, right after somebody has declared it."""
    with gearshift.open(settings=_queue_on(kafka, name)) as bus:
        bus.declare(name)
        monkeypatch.setattr(topics, "topic_partitions", lambda *_: [])
        bus.delete(name)
    assert until(lambda: not [one for one in raw_admin.list_topics().topics if name in one])


def test_a_cluster_that_is_slow_to_tell_its_nodes_is_asked_until_the_deadline(
    kafka: Kafka, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic that was just made is not missing: that would be said at once."""
    unknown = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    refusals = iter([unknown] * 3)
    answers = topics.answers

    def ask(*arguments: Any, **options: Any) -> Any:
        for refusal in refusals:
            raise refusal  # as after all the time that one question has
        return answers(*arguments, **options)

    monkeypatch.setattr(topics, "answers", ask)
    with gearshift.open(settings=_queue_on(kafka, name)) as bus:
        bus.declare(name, timeout_s=PATIENCE_S)
        assert next(refusals, None) is None
        bus.delete(name)


def test_a_handler_slower_than_the_poll_interval_keeps_its_partition(
    open_bus: OpenBus, name: str
) -> None:
    """Polling goes on while a delivery is in hand, so its ack counts and nothing comes again."""
    profile = 'native.consumer = {"max.poll.interval.ms" = 6000}'
    bus = open_bus(one_partition(name), profile=profile)
    bus.producer(name).send_many(range(3))
    with bus.consumer(name, group="g", prefetch=1) as slow:
        (delivery,) = take(slow, 1)
        time.sleep(9)  # what is proved here is that time passes
        delivery.ack()
        slow.flush()
        (following,) = take(slow, 1)
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
        assert [delivery.value for delivery in take(tail, 1)] == ["seen"]
    bus.producer(queue).send("retried")
    with bus.consumer(queue, group="g") as consumer:
        (first,) = take(consumer, 1)
        first.retry(delay_s=0.1)
        assert bus.groups(queue)[0].group == "g"
        (second,) = take(consumer, 1)
        assert second.attempt == 2
        second.ack()


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
    add_partitions(raw_admin, name)
    with bus.producer("c") as producer:
        receipts = producer.send_many(range(40), key_by=str)
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


@pytest.mark.parametrize("start", ["latest", "time"])
def test_a_partition_that_a_group_does_not_know_begins_at_its_start(
    open_bus: OpenBus, name: str, raw_admin: AdminClient, start: str
) -> None:
    """What was sent before anybody noticed it is received, wherever a new group would begin."""
    where = Start(StartAt.LATEST if start == "latest" else StartAt.TIME, time_ms=2**42)
    bus = open_bus(one_partition(name))
    bus.producer(name).send("skipped, as told")
    with bus.consumer(name, group="g", start=where) as consumer:
        consumer.ready()
        bus.producer(name).send("old")
        assert drain(consumer, 1) == ["old"]
    add_partitions(raw_admin, name)
    bus = open_bus(f'[channels.c]\nnative.kafka = {{ topic = "{name}", group = "{name}.g" }}')
    with bus.producer("c") as producer:
        receipts = producer.send_many(range(20), key_by=str)
    assert {receipt.position.partition for receipt in receipts} == {0, 1, 2, 3}
    with bus.consumer("c", start=where) as consumer:
        assert set(drain(consumer, 20)) == set(range(20))


def test_an_ephemeral_consumer_reads_partitions_that_are_added(
    open_bus: OpenBus, name: str, raw_admin: AdminClient
) -> None:
    """From their beginning, although it began at the end of the others."""
    refresh = 'native.consumer = {"topic.metadata.refresh.interval.ms" = 200}'
    bus = open_bus(one_partition(name), profile=refresh)
    bus.producer(name).send("before")
    tail = bus.consumer(name, ephemeral=True, start=Start(StartAt.LATEST))
    tail.ready()
    add_partitions(raw_admin, name)
    with open_bus(f'[channels.c]\nnative.kafka.topic = "{name}"').producer("c") as producer:
        receipts = producer.send_many(range(20), key_by=str)
    assert {receipt.position.partition for receipt in receipts} == {0, 1, 2, 3}
    assert set(drain(tail, 20)) == set(range(20))
    assert tail.partitions == {0, 1, 2, 3}


def test_what_retention_has_taken_from_a_group_is_told_and_counted(
    open_bus: OpenBus, name: str, raw_admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning with channel, group, partition and number; reading goes on with the oldest."""
    bus = open_bus(one_partition(name))
    bus.producer(name).send_many(range(10))
    with bus.consumer(name, group="g") as consumer:
        take(consumer, 1)[0].ack()
    oldest = TopicPartition(name, 0, 7)
    raw_admin.delete_records([oldest])[oldest].result(20)
    with bus.consumer(name, group="g") as consumer:
        assert drain(consumer, 3) == [7, 8, 9]
    (stats,) = [each for each in bus.stats().receiving if each.group == "g"]
    assert stats.skipped == 6
    (warning,) = [line for line in caplog.messages if "deleted by retention" in line]
    assert f"{name!r}, group 'g', partition 0: 6 messages" in warning


_MEMBER = """
import gearshift, sys
consumer = gearshift.open(sys.argv[1]).consumer(sys.argv[2], group="g")
(delivery,) = consumer.receive(timeout_s=30)
print("received", flush=True)
sys.stdin.read()
"""


def test_a_member_that_is_leaving_takes_nothing_more(kafka: Kafka, name: str) -> None:
    """What it is given while its last commits are on their way, another gets in a moment."""
    told: list[int] = []

    class Events(NoEvents):
        def assigned(
            self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
        ) -> None:
            told.extend(partitions)

    backend = Backend(Settings(bootstrap_servers=(kafka.url,)))
    channel = ChannelSpec(
        name=name, semantics=gearshift.Semantics.STREAM, groups=(), native=ChannelSettings()
    )
    backend.admin().declare(channel)
    spec = ConsumerSpec(channel=channel, group="g", member="m", prefetch=1)
    driver: Any = backend.log_consumer(spec, Events())
    driver._finish = lambda _: driver._on_assign(driver._consumer, [TopicPartition(name, 0)])
    driver.close(1.0)
    driver._consumer.close()
    assert told == []
    backend.admin().delete(channel)


def test_a_second_process_with_the_id_of_a_static_member_stands_by(
    kafka: Kafka, open_bus: OpenBus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, naming the id, however often it asks; it goes on when the first has left."""
    caplog.set_level(logging.INFO, "gearshift")
    profile = 'group_instance_id = "one"'
    bus, other = (open_bus(one_partition(name), profile=profile) for _ in range(2))
    bus.producer(name).send_many(["first", "second"])
    first = bus.consumer(name, group="g", prefetch=1)
    assert drain(first, 1) == ["first"]
    first.flush()
    second = other.consumer(name, group="g")

    def stats() -> ReceiveStats:
        return other.stats().receiving[0]

    assert until(lambda: stats().reconnects >= 3)
    assert until(lambda: "group_instance_id 'one'" in str(stats().disconnected))
    ours = [one for one in caplog.records if one.name == "gearshift.consumer"]
    (warning,) = [one for one in ours if one.levelno >= logging.WARNING]
    assert "group_instance_id 'one': another consumer" in warning.getMessage()
    assert ": connected again" not in caplog.text
    first.close()
    assert drain(second, 1) == ["second"]
    assert ": connected again" in caplog.text


def test_a_static_member_that_was_killed_is_succeeded_by_its_next_process(
    kafka: Kafka, tmp_path: Path, name: str, raw_admin: AdminClient
) -> None:
    """The broker keeps the killed one's place until its session is over; the next one waits."""
    times = {"consumer.session.timeout.ms": "2000", "consumer.heartbeat.interval.ms": "500"}
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in times.items()
    ]
    group = ConfigResource(ResourceType.GROUP, f"{name}.g", incremental_configs=entries)
    raw_admin.incremental_alter_configs([group])[group].result(20)
    profile = f'{profile_of(kafka)}\ngroup_instance_id = "one"'
    file = write_settings(tmp_path, profile, one_partition(name))
    with gearshift.open(file) as bus:
        bus.producer(name).send("first")
        killed = subprocess.Popen(
            [sys.executable, "-c", _MEMBER, str(file), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        with killed:
            assert killed.stdout is not None
            assert killed.stdout.readline() == b"received\n"
            killed.kill()
        assert drain(bus.consumer(name, group="g"), 1) == ["first"]


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_topic_that_is_made_again_under_its_reader_is_read_from_its_beginning(
    open_bus: OpenBus, raw_admin: AdminClient, name: str, start: StartName
) -> None:
    """The group's position was one in the topic that is gone."""
    producer = open_bus(one_partition(name)).producer(name)
    consumer = open_bus(one_partition(name)).consumer(name, group="g", start=start)
    consumer.ready()
    producer.send_many(range(10))
    assert ack_all(take(consumer, 10)) == list(range(10))
    consumer.flush()
    producer.close()
    raw_admin.delete_topics([name])[name].result(20)

    def is_made_again() -> bool:
        made = raw_admin.create_topics([NewTopic(name, 1, 1)])[name]
        return made.exception(20) is None

    assert until(is_made_again)
    open_bus(one_partition(name)).producer(name).send_many(range(100, 130))
    values: set[object] = set()
    assert until(
        lambda: values.update(ack_all(consumer.receive(50, timeout_s=1))) or len(values) >= 30
    )
    assert values == set(range(100, 130))


class _Watched(confluent_kafka.Consumer):
    """A client that notes what is called within its close, and whether it left before."""

    members: ClassVar[list[_Watched]] = []

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__(conf)
        self.is_member, self.has_left, self.is_closing = False, False, False
        self.within: list[str] = []

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        def watched(name: str) -> Any:
            def call(*given: Any) -> None:
                if self.is_closing:
                    self.within.append(name)
                self.is_member = True
                callbacks[name](*given)

            return call

        self.members.append(self)
        super().subscribe(topics, **{name: watched(name) for name in callbacks})

    def unsubscribe(self) -> None:
        self.has_left = True
        super().unsubscribe()

    def close(self) -> None:
        self.is_closing = True
        super().close()


@pytest.mark.parametrize(
    ("semantics", "more"),
    [("queue", ""), ("stream", ""), ("stream", '\ngroup_instance_id = "one"')],
    ids=["queue", "stream", "static"],
)
def test_a_member_has_left_before_its_client_is_closed(
    kafka: Kafka,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    semantics: str,
    more: str,
) -> None:
    """What the client calls within its close may stop the process for ever. A static member keeps
    its place, and is told all the same that its partitions are gone."""
    monkeypatch.setattr(confluent_kafka, "Consumer", _Watched)
    monkeypatch.setattr("gearshift_kafka.queue.opening.Consumer", _Watched)
    monkeypatch.setattr(_Watched, "members", [])
    channel = f'[channels.{name}]\nsemantics = "{semantics}"\ngroups = ["g"]'
    with gearshift.open(write_settings(tmp_path, profile_of(kafka) + more, channel)) as bus:
        consumer = bus.consumer(name, group="g")
        bus.producer(name).send(1)
        ack_all(take(consumer, 1))
        assert until(lambda: all(client.is_member for client in _Watched.members))
        consumer.close()
    assert _Watched.members
    for client in _Watched.members:
        assert client.has_left is not bool(more)
        assert bool(client.within) is not client.has_left


def test_a_member_whose_callback_fails_is_closed(kafka: Kafka, name: str) -> None:
    """Its threads and connections would stay else."""

    def fails(*_: object) -> None:
        raise ValueError("a callback")

    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka.url, "group.id": name})
    with gearshift.open(settings=_queue_on(kafka, name)) as bus:
        bus.declare(name)
        consumer.subscribe([name], on_revoke=fails)
        assert until(lambda: consumer.consume(1, 0.1) or consumer.assignment())
        with pytest.raises(ValueError, match="a callback"):
            leave_and_close(consumer)
        with pytest.raises(RuntimeError, match="closed"):
            consumer.assignment()
        bus.delete(name)
