"""A Kafka cluster that loses the node that leads: what has a receipt is stored.

The node is frozen first, so that what is sent waits before it and is on its way when it dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from soak.cluster_faults import Target, cut_off
from soak.clusters import SUBJECTS, cell, running
from support.plain import in_topic
from support.settings import write_settings
from support.waiting import PATIENCE_S, until

import gearshift
from gearshift.driver import ChannelSpec
from gearshift.message import Semantics
from gearshift_kafka import backend
from gearshift_kafka.names import topic_partitions
from gearshift_kafka.settings import ChannelSettings, Settings
from native_brokers import KafkaCluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

_MANY = 20


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A cluster of this module alone, for its nodes are killed."""
    with running(SUBJECTS["kafka-4.4"]) as cluster:
        yield cluster


@pytest.fixture
def cluster(target: Target) -> KafkaCluster:
    assert isinstance(target.cluster, KafkaCluster)
    return target.cluster


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
        assert until(lambda: cluster.leader(name))
        leader = cluster.leader(name)
        assert leader is not None
        leader.pause()
        waiting = [
            producer.submit(number, timeout_s=PATIENCE_S) for number in range(_MANY, 2 * _MANY)
        ]
        leader.kill()
        for one in waiting:
            assert one.result(PATIENCE_S)
        producer.send_many(range(2 * _MANY, 3 * _MANY))
    assert {int(found.body) for found in in_topic(cluster, name)} == set(range(3 * _MANY))


def test_a_node_that_has_not_heard_of_a_new_topic_is_asked_again(
    target: Target, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer that asks it first is opened once it has heard."""
    answers: list[list[int]] = []

    def ask(*arguments: Any) -> list[int]:
        answers.append(topic_partitions(*arguments))
        return answers[-1]

    monkeypatch.setattr(backend, "topic_partitions", ask)
    monkeypatch.setattr(backend, "HEARD_WITHIN_S", PATIENCE_S)
    target.heal()
    late = target.cluster.nodes[2]
    servers = tuple(f"127.0.0.1:{cable.port}" for cable in target.cables)
    channel = ChannelSpec(
        name=name, semantics=Semantics.STREAM, groups=(), native=ChannelSettings()
    )
    target.cluster.isolate(late)
    first = backend.Backend(Settings(bootstrap_servers=servers[:2]))

    def declared() -> bool:
        """As core does: if the late node was the controller, the others elect one first."""
        try:
            first.admin().declare(channel)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._TIMED_OUT:
                raise
            return False
        return True

    assert until(declared)
    for cable in target.cables[:2]:
        cable.refuse(True)
        cable.cut()
    other = Settings(bootstrap_servers=servers[2:])
    with ThreadPoolExecutor() as pool:
        opened = pool.submit(backend.Backend(other).producer, channel)
        assert until(lambda: answers)
        target.heal()
        assert answers[0] == []
        opened.result(PATIENCE_S).close(1.0)


@pytest.mark.long
def test_every_promise_is_kept_while_a_node_is_cut_off(target: Target, tmp_path: Path) -> None:
    """The soak, short: see there for what is counted."""
    target.heal()
    rows = cell("kafka-4.4", target, cut_off, 0.0, tmp_path)
    assert [row.notes for row in rows] == [[], []]
    assert all(row.times == 1 and row.receipts for row in rows)
