"""A message's own time and its record's: retention and the broker's limits go by the latter."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from support.waiting import take

from native_brokers import Kafka

from .conftest import OpenBus

pytestmark = pytest.mark.broker

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class Case(NamedTuple):
    """How much older than now a message is, and whether its record can be as old."""

    age_ms: int
    is_kept: bool


def record_time(kafka: Kafka, topic: str, partition: int = 0) -> int:
    """The broker's timestamp of the first record."""
    consumer = Consumer({"bootstrap.servers": kafka.url, "group.id": "looks"})
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        (record,) = consumer.consume(1, 30)
        return int(record.timestamp()[1])
    finally:
        consumer.close()


@pytest.mark.parametrize(
    "case",
    [
        Case(age_ms=MINUTE_MS, is_kept=True),
        Case(age_ms=30 * MINUTE_MS, is_kept=False),
        Case(age_ms=100 * HOUR_MS, is_kept=False),
        Case(age_ms=-30 * MINUTE_MS, is_kept=True),
        Case(age_ms=-100 * HOUR_MS, is_kept=False),
    ],
    ids=["young", "half of the retention", "long past it", "ahead", "too far ahead"],
)
def test_a_record_has_a_time_that_its_topic_keeps(
    kafka: Kafka, open_bus: OpenBus, name: str, case: Case
) -> None:
    """With an hour of retention the message comes as it was sent, and its record stays."""
    bus = open_bus(f"[channels.{name}]\npartitions = 1\nretention_s = 3600")
    now_ms = int(time.time() * 1000)
    own_ms = now_ms - case.age_ms
    bus.producer(name).send("old", timestamp_ms=own_ms)
    (delivery,) = take(bus.consumer(name), 1)
    assert delivery.message.timestamp_ms == own_ms
    assert not delivery.headers
    record_ms = record_time(kafka, name)
    assert (record_ms == own_ms) if case.is_kept else (record_ms >= now_ms)


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_a_topic_that_keeps_everything_takes_every_time(
    kafka: Kafka, open_bus: OpenBus, name: str, raw_admin: AdminClient, policy: str
) -> None:
    """So that a copied history can be read by time; its dead letters are kept as any other."""
    config = {"cleanup.policy": policy} | ({"retention.ms": "-1"} if policy == "delete" else {})
    raw_admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(20)
    bus = open_bus(f'[channels.{name}]\nnative.kafka.topic = "{name}"')
    bus.producer(name).send("old", key="k", timestamp_ms=1_700_000_000_123)
    assert record_time(kafka, name) == 1_700_000_000_123
    (delivery,) = take(bus.consumer(name, group="g"), 1)
    began_ms = int(time.time() * 1000)
    delivery.reject("no")
    (letter,) = take(bus.consumer(f"{name}.dead", group="look"), 1)
    assert letter.message.timestamp_ms == 1_700_000_000_123
    assert letter.position is not None
    assert record_time(kafka, f"{name}.dead", letter.position.partition) >= began_ms
