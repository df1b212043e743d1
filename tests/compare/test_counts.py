"""The ledger's counts are the brokers' own, asked with their own tools."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pika
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from support.settings import profile_of, write_settings
from support.waiting import until

from gearshift.compare import measures, workload
from gearshift.compare.columns import PARTITIONS, Target
from gearshift.compare.measures import count
from gearshift.compare.trial import Trial
from gearshift.compare.worker import GROUP, Duties
from gearshift.message import Semantics
from native_brokers import Kafka, RabbitMQ

MESSAGES, HANDLED = 90, 40

#: What a broker says: how many messages the group has still to settle.
Waiting = Callable[[str], int]


def agree(settings: str, semantics: Semantics, folder: Path, waiting: Waiting) -> None:
    """Send, handle some, stop: at both times ledger and broker must say the same."""
    target = Target(config=write_settings(folder, settings), profile="p", semantics=semantics)
    channel = {"groups": [GROUP], "dead_letter": False}
    with Trial.set_up(target, folder, channel, duties=Duties(work_ms=1)) as trial:
        trial.send(workload.make(1, MESSAGES, 8))
        assert count(trial.log.events(), "receipt") == MESSAGES
        assert settled(waiting, trial.channel, MESSAGES) == MESSAGES
        trial.thread("w")
        trial.wait(lambda events: count(events, "done") >= HANDLED, "some handled")
        trial.workers.stop()
        left = MESSAGES - len(measures.settled(trial.log.events(), "ack"))
        assert 0 < left <= MESSAGES - HANDLED
        assert settled(waiting, trial.channel, left) == left


def settled(waiting: Waiting, channel: str, expected: int) -> int:
    """What the broker says once it says what is expected, or in the end; its statistics lag."""
    told = 0

    def is_expected() -> bool:
        nonlocal told
        told = waiting(channel)
        return told == expected

    until(is_expected)
    return told


@pytest.mark.parametrize("semantics", Semantics)
def test_sqlite(semantics: Semantics, tmp_path: Path) -> None:
    """Rows of unsettled work; the offsets of partitions and of the group."""
    query = {
        Semantics.QUEUE: "SELECT count(*) FROM work",
        Semantics.STREAM: "SELECT (SELECT sum(next) FROM log) "
        "- (SELECT coalesce(sum(next), 0) FROM position)",
    }[semantics]

    def waiting(_channel: str) -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "one.db")) as database:
            return int(database.execute(query).fetchone()[0])

    agree('backend = "sqlite"\npath = "one.db"', semantics, tmp_path, waiting)


@pytest.mark.broker
def test_a_queue_on_rabbitmq(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """The queue's messages that are ready, told over AMQP."""

    def waiting(channel: str) -> int:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.url))) as link:
            queue = link.channel().queue_declare(f"{channel}.{GROUP}", passive=True)
            return int(queue.method.message_count)

    agree(profile_of(rabbitmq), Semantics.QUEUE, tmp_path, waiting)


@pytest.mark.broker
def test_a_stream_on_rabbitmq(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """What the broker counts in the partitions, less the group's offsets in their queues."""

    def waiting(channel: str) -> int:
        told = rabbitmq.text('rabbit_amqqueue:info_all(<<"/">>, [name, messages])')
        counts = re.findall(r'<<"([^"]+)">>}},{messages,(\d+)}', told)
        messages = {name: int(count) for name, count in counts}
        partitions = [f"{channel}:{number}" for number in range(PARTITIONS)]
        stored = sum(messages[partition] for partition in partitions)
        kept = [f"{name}:{GROUP}" for name in partitions if f"{name}:{GROUP}" in messages]
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.url))) as link:
            # Unsettled, so that closing the connection gives them back.
            return stored - sum(int(link.channel().basic_get(queue)[2] or 0) for queue in kept)

    agree(profile_of(rabbitmq), Semantics.STREAM, tmp_path, waiting)


@pytest.mark.broker
def test_a_stream_on_kafka(kafka: Kafka, tmp_path: Path) -> None:
    """The partitions' end offsets, less the group's committed ones."""

    def waiting(channel: str) -> int:
        return unread(kafka, channel, f"{channel}.{GROUP}")

    agree(profile_of(kafka), Semantics.STREAM, tmp_path, waiting)


@pytest.mark.broker
def test_a_queue_on_kafka(kafka: Kafka, tmp_path: Path) -> None:
    """The lag that Kafka's own tool tells; before anybody has read, everything to the end.

    And what the consumer gave back when it was closed, in topics that nobody reads any more.
    """

    def waiting(channel: str) -> int:
        described = kafka.tool(
            "consumer.group.ShareGroupCommand", "--describe", "--offsets", "--group",
            f"{channel}.{GROUP}",
        )  # fmt: skip
        rows = [line.split() for line in described.splitlines()]
        heading = next((row for row in rows if "LAG" in row), [])
        lags = [dict(zip(heading, row, strict=True))["LAG"] for row in rows if channel in row[1:2]]
        if not lags or "-" in lags:
            return unread(kafka, channel, "nobody")
        delay, retry = f"{channel}.{GROUP}.delay", f"{channel}.{GROUP}.retry"
        given_back = unread(kafka, delay, delay) + unread(kafka, retry, "nobody")
        return sum(map(int, lags)) + given_back

    agree(profile_of(kafka), Semantics.QUEUE, tmp_path, waiting)


def unread(broker: Kafka, topic: str, group: str) -> int:
    """How many messages the partitions have been given, less what ``group`` has committed."""
    reader = Consumer({"bootstrap.servers": broker.url, "group.id": group})
    partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
    places = [TopicPartition(topic, number) for number in partitions]
    try:
        given = sum(reader.get_watermark_offsets(place, timeout=10)[1] for place in places)
        committed = reader.committed(places, timeout=30)
    except KafkaException:
        return -1000  # a coordinator or leader is still loading: ask again
    finally:
        reader.close()
    return int(given - sum(max(0, place.offset) for place in committed))
