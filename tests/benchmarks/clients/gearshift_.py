"""Gearshift's side: what ``gearshift bench`` does, on every broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gearshift
from benchmarks.work import Load, Place, Sample
from gearshift.operations.bench import WORKS


def settings_of(place: Place, **channel: Any) -> dict[str, Any]:
    """What the address says, a semantics may stand before it, as in queue+kafka://; and further
    settings of the channel."""
    semantics, _, url = place.url.rpartition("+")
    backend, _, address = url.partition("://")
    profile: dict[str, Any] = {
        "amqp": {"backend": "rabbitmq", "url": url},
        "kafka": {"backend": "kafka", "bootstrap_servers": [address]},
        "sqlite": {"backend": "sqlite", "path": address},
        "redis": {"backend": "redis", "url": url},
        "memory": {"backend": "memory"},
    }[backend]
    channel |= {"semantics": semantics} if semantics else {}
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


def _do(work: str, place: Place, load: Load) -> Sample:
    with opened(place) as bus:
        return WORKS[work](bus, place.name, load)


send, send_many, receive, end_to_end = (partial(_do, work) for work in WORKS)


def left(place: Place) -> int:
    """How many wait, where the broker can only be asked through Gearshift."""
    with opened(place) as bus:
        (status,) = bus.groups(place.name)
        return (status.ready or 0) + (status.in_flight or 0)
