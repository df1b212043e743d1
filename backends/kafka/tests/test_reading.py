"""What reading costs: records fetched for those that are wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer
from support.waiting import take, until

from gearshift.driver import Start
from gearshift_kafka.admin import lag
from gearshift_kafka.settings import Settings
from gearshift_kafka.signals import Signals
from gearshift_kafka.stream.ephemeral import EphemeralStreamConsumer
from native_brokers import Kafka

from .conftest import NoEvents, OpenBus

pytestmark = pytest.mark.broker

COUNT = 3000


@pytest.fixture
def fetched() -> list[int]:
    """How many records the client had fetched, each time that it said so."""
    return []


@pytest.fixture
def reader(
    kafka: Kafka, open_bus: OpenBus, name: str, fetched: list[int]
) -> Iterator[EphemeralStreamConsumer]:
    """Stands before a backlog."""
    open_bus(f"[channels.{name}]\npartitions = 1").producer(name).send_many([b"x" * 100] * COUNT)
    ours = {
        "group.id": name, "statistics.interval.ms": 50,
        "stats_cb": lambda text: fetched.append(json.loads(text)["rxmsgs"]),
    }  # fmt: skip
    consumer = Consumer(Settings(bootstrap_servers=(kafka.url,)).client("reader") | ours)
    reader = EphemeralStreamConsumer(
        consumer, name, NoEvents(), Signals(), start=Start(), partitions=[0], refresh_s=60
    )
    yield reader
    reader.close(1.0)


def test_a_slow_handler_on_a_backlog_has_it_fetched_once(
    reader: EphemeralStreamConsumer, fetched: list[int]
) -> None:
    """While none is wanted the client is polled all the same; what that brings is used first."""
    offsets = [one.token.offset for one in reader.receive(1, 30)]
    for _ in range(COUNT // 2):
        reader.receive(0, 0)  # handlers are at work for long
    for _ in range(30):
        reader.receive(0, 0.02)
        offsets += [one.token.offset for one in reader.receive(1, 30)]
    seen = len(fetched)
    while len(fetched) == seen:
        reader.receive(0, 0.1)
    assert offsets == list(range(31))
    assert fetched[-1] < 2 * COUNT


def test_a_handler_that_takes_less_than_is_polled_has_nothing_fetched_again(
    reader: EphemeralStreamConsumer, fetched: list[int]
) -> None:
    """Polls while none is wanted become rare before they fill the hand, which would be a pause."""
    offsets = []
    for _ in range(COUNT // 2):
        for _ in range(3):
            reader.receive(0, 0)
        offsets += [one.token.offset for one in reader.receive(1, 30)]
    seen = len(fetched)
    while len(fetched) == seen:
        reader.receive(0, 0.1)
    assert offsets == list(range(COUNT // 2))
    assert fetched[-1] == COUNT


def test_a_group_that_has_read_everything_has_no_lag_behind_transactions(
    kafka: Kafka, open_bus: OpenBus, name: str
) -> None:
    """The markers that end transactions, and what was aborted, are no messages; nor is what a
    transaction that is still open has written."""
    bus = open_bus(f"[channels.{name}]\npartitions = 1")
    producer = Producer({"bootstrap.servers": kafka.url, "transactional.id": name})
    producer.init_transactions(30)

    def write() -> None:
        producer.begin_transaction()
        producer.produce(name, b"v")
        producer.flush(30)

    def has_no_lag() -> bool:
        return bus.groups(name)[0].lag == 0

    with bus.consumer(name, group="g") as consumer:
        write()
        producer.commit_transaction(30)
        (delivery,) = take(consumer, 1)
        delivery.ack()
        assert until(has_no_lag)
        write()
        assert has_no_lag()
        producer.abort_transaction(30)
        assert until(has_no_lag)
    assert has_no_lag()


@pytest.mark.parametrize(
    ("committed", "expected"),
    [({0: 5}, 5), ({0: 10}, 0), ({0: 99}, 0), ({0: 1}, 7), ({1: 2}, 7), ({}, None)],
)
def test_lag_is_what_is_still_there_and_never_negative(
    committed: dict[int, int], expected: int | None
) -> None:
    """Positions within the log, behind it, before it, in another partition, and none."""
    assert lag(committed, first={0: 3}, end={0: 10}) == expected
