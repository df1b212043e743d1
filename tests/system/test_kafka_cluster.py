"""A Kafka cluster that loses the node that leads: what has a receipt is stored.

The node is frozen first, so that what is sent waits before it and is on its way when it dies.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from support.settings import write_settings
from support.waiting import PATIENCE_S

import gearshift
from native_brokers import KafkaCluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

_MANY = 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    """Of this module alone, for its nodes are killed."""
    with KafkaCluster() as nodes:
        yield nodes


def found(cluster: KafkaCluster, topic: str, wanted: set[int]) -> set[int]:
    """The numbers that a plain client finds in ``topic``, until it has all that are wanted."""
    numbers: set[int] = set()
    deadline = time.monotonic() + PATIENCE_S
    reader = Consumer(
        {
            "bootstrap.servers": cluster.url,
            "group.id": f"{topic}-reader",
            "auto.offset.reset": "earliest",
        }
    )
    reader.subscribe([topic])
    while not wanted <= numbers and time.monotonic() < deadline:
        numbers |= {int(one.value() or b"") for one in reader.consume(100, 0.5) if not one.error()}
    reader.close()
    return numbers


def test_receipts_hold_when_the_leader_of_a_topic_is_killed(
    cluster: KafkaCluster, tmp_path: Path, name: str
) -> None:
    """Sends that were on their way to it get theirs from the next leader, and those after them."""
    cluster.start()
    servers = [node.url for node in cluster.nodes]
    profile = f'backend = "kafka"\nbootstrap_servers = {servers}'
    channel = f'[channels.{name}]\nsemantics = "stream"\npartitions = 1\ndead_letter = false'
    settings = write_settings(tmp_path, profile, channel)
    with gearshift.open(settings) as bus:
        producer = bus.producer(name)
        producer.send_many(range(_MANY))
        topic = AdminClient({"bootstrap.servers": cluster.url}).list_topics(name, timeout=30)
        leader = cluster.nodes[topic.topics[name].partitions[0].leader - 1]
        leader.pause()
        waiting = [
            producer.submit(number, timeout_s=PATIENCE_S) for number in range(_MANY, 2 * _MANY)
        ]
        leader.kill()
        for one in waiting:
            assert one.result(PATIENCE_S)
        producer.send_many(range(2 * _MANY, 3 * _MANY))
    wanted = set(range(3 * _MANY))
    assert found(cluster, name, wanted) == wanted
