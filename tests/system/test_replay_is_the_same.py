"""A stream is a stream: the same workload gives the same ledger on RabbitMQ and on Kafka."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from pathlib import Path
from typing import TypeAlias

import pytest
from support.waiting import PATIENCE_S

import gearshift
from gearshift.driver import Start, StartAt
from native_brokers import Broker, Kafka, RabbitMQ

# The brokers, of which three may have to start, have limits of their own.
pytestmark = [pytest.mark.broker, pytest.mark.timeout(180, func_only=True)]

#: Per key, what came in the order in which it came.
Ledger: TypeAlias = dict[str, list[tuple[int, str]]]

MESSAGES = 600


def workload(seed: int) -> list[tuple[str, str]]:
    """Keys and values: some keys busier than others, some values long."""
    chance = random.Random(seed)
    keys = [f"aircraft-{n}" for n in range(30)]
    weights = [1 / (n + 1) for n in range(30)]
    picked = chance.choices(keys, weights, k=MESSAGES)
    return [(key, "x" * chance.randrange(2000)) for key in picked]


class Reading:
    """One group's reading of a stream, and what it got in each pass."""

    def __init__(self, consumer: gearshift.Consumer) -> None:
        self._consumer = consumer

    def take(self, count: int) -> list[gearshift.Delivery]:
        """Exactly so many, all acked; then nothing more may come."""
        got: list[gearshift.Delivery] = []
        deadline = time.monotonic() + PATIENCE_S
        while (more := len(got) < count) or time.monotonic() < deadline:
            deliveries = self._consumer.receive(100, timeout_s=1.0 if more else 0.5)
            for delivery in deliveries:
                delivery.ack()
            got += deliveries
            if not deliveries and (not more or time.monotonic() > deadline):
                break
        self._consumer.flush()
        assert len(got) == count
        return got


def ledger(deliveries: list[gearshift.Delivery]) -> Ledger:
    found: Ledger = defaultdict(list)
    for delivery in deliveries:
        assert delivery.key is not None
        number, text = delivery.value
        found[delivery.key].append((number, text))
    return dict(found)


def expected(sent: list[tuple[str, str]], first: int = 0) -> Ledger:
    found: Ledger = defaultdict(list)
    for number, (key, text) in enumerate(sent):
        if number >= first:
            found[key].append((number, text))
    return dict(found)


def passes(broker: Broker, folder: Path) -> list[Ledger]:
    """First reading; replay from the start, from an offset in each partition, from a time."""
    if isinstance(broker, Kafka):
        profile = f'backend = "kafka"\nbootstrap_servers = ["{broker.url}"]'
    else:
        profile = f'backend = "rabbitmq"\nurl = "{broker.url}"'
    file = folder / f"{broker.name}.toml"
    file.write_text(
        f'profile = "p"\n[profiles.p]\n{profile}\n'
        '[channels.flights]\nsemantics = "stream"\npartitions = 4\ngroups = ["g"]\n'
    )
    sent = list(enumerate(workload(seed=7)))
    half = MESSAGES // 2
    with gearshift.open(file) as bus:
        producer = bus.producer("flights")
        producer.send_many(_messages(producer, sent[:half]))
        time.sleep(0.05)  # the brokers' clocks count milliseconds: the halves must not share one
        between_ms = round(time.time() * 1000)
        time.sleep(0.05)
        producer.send_many(_messages(producer, sent[half:]))
        with bus.consumer("flights", group="g") as consumer:
            reading = Reading(consumer)
            first = reading.take(MESSAGES)
            consumer.seek(Start())
            again = reading.take(MESSAGES)
            second_half = {}
            for delivery in reversed(first):
                if delivery.value[0] >= half:
                    assert delivery.position is not None
                    second_half[delivery.position.partition] = delivery.position.offset
            consumer.seek(Start(StartAt.OFFSET, second_half))
            from_offset = reading.take(half)
            consumer.seek(Start(StartAt.TIME, time_ms=between_ms))
            from_time = reading.take(half)
    return [ledger(each) for each in (first, again, from_offset, from_time)]


def _messages(
    producer: gearshift.Producer, part: list[tuple[int, tuple[str, str]]]
) -> list[gearshift.Message]:
    return [producer.message((number, text), key=key) for number, (key, text) in part]


def test_replay_gives_the_same_ledger_on_rabbitmq_and_kafka(
    rabbitmq: RabbitMQ, rabbitmq4: RabbitMQ, kafka: Kafka, tmp_path: Path
) -> None:
    """First pass, from the start, from offsets and from a time: per key the same values in the
    same order, and those are what was sent."""
    sent = workload(seed=7)
    whole, half = expected(sent), expected(sent, first=MESSAGES // 2)
    for number, broker in enumerate((rabbitmq, rabbitmq4, kafka)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert passes(broker, folder) == [whole, whole, half, half], broker.name
