"""Gearshift's side: the same functions for every broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gearshift
from benchmarks.work import (
    HEADERS,
    IDLE_S,
    Place,
    Received,
    Sample,
    Stopwatch,
    in_threads,
    load,
    timed,
)


def settings_of(place: Place) -> dict[str, Any]:
    """What the address says: a semantics may stand before it, as in queue+kafka://."""
    semantics, _, url = place.url.rpartition("+")
    backend, _, address = url.partition("://")
    profile: dict[str, Any] = {
        "amqp": {"backend": "rabbitmq", "url": url},
        "kafka": {"backend": "kafka", "bootstrap_servers": [address]},
        "sqlite": {"backend": "sqlite", "path": address},
        "redis": {"backend": "redis", "url": url},
        "memory": {"backend": "memory"},
    }[backend]
    channel = {"semantics": semantics} if semantics else {}
    return {"profile": "p", "profiles": {"p": profile}, "channels": {place.name: channel}}


@contextmanager
def opened(place: Place) -> Iterator[gearshift.Bus]:
    """A bus there."""
    with gearshift.open(settings=settings_of(place)) as bus:
        yield bus


def declare(place: Place) -> None:
    """Make what the channel needs on its broker."""
    with opened(place) as bus:
        bus.declare(place.name)


def send_many(place: Place, total: int) -> Sample:
    with opened(place) as bus, bus.producer(place.name) as producer:

        def run() -> int:
            messages = (
                producer.message(body, key=key, headers=HEADERS) for key, body in load(place, total)
            )
            results = producer.send_many(messages, raise_on_error=False)
            return sum(isinstance(result, gearshift.Receipt) for result in results)

        return timed(run)


def send(place: Place, total: int) -> Sample:
    with opened(place) as bus, bus.producer(place.name) as producer:

        def run() -> int:
            for key, body in load(place, total):
                producer.send(body, key=key, headers=HEADERS)
            return total

        return timed(run)


def send_from_threads(place: Place, total: int) -> Sample:
    with opened(place) as bus, bus.producer(place.name) as producer:

        def one(key: str, body: bytes) -> bool:
            return bool(producer.send(body, key=key, headers=HEADERS))

        return in_threads(one, place, total)


def receive(place: Place, total: int) -> Sample:
    received = Received(total)
    with opened(place) as bus, bus.consumer(place.name, prefetch=500) as consumer:
        while not received.complete:
            deliveries = consumer.receive(500, timeout_s=IDLE_S)
            if not deliveries:
                break
            received.add(*(delivery.body for delivery in deliveries))
            for delivery in deliveries:
                delivery.ack()
        consumer.flush()
        return received.sample()


def end_to_end(place: Place, total: int) -> Sample:
    watch = Stopwatch(total)
    with (
        opened(place) as bus,
        bus.producer(place.name) as producer,
        bus.consumer(place.name) as consumer,
    ):

        def serve() -> None:
            while not watch.ended:
                for delivery in consumer.receive(100, timeout_s=IDLE_S):
                    watch.arrived(delivery.body)
                    delivery.ack()

        return watch.run(lambda body: producer.send(body, headers=HEADERS), serve)


def left(place: Place) -> int:
    """How many wait, where the file can only be asked through Gearshift."""
    with opened(place) as bus:
        (status,) = bus.groups(place.name)
        return (status.ready or 0) + (status.in_flight or 0)
