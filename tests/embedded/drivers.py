"""Making the embedded backends' drivers by hand, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gearshift.driver import (
    Backend,
    ChannelSpec,
    ConsumerSpec,
    Place,
    Received,
    Settlement,
    SettleRequest,
)
from gearshift.embedded import memory, sqlite
from gearshift.embedded.sqlite.store import Store
from gearshift.message import Message, Semantics

LEASE_S = 30.0


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def sqlite_backend(path: Path, clock: Clock, uptime: Clock | None = None) -> sqlite.Backend:
    """On ``clock``, by which leases are judged too unless there is an ``uptime``."""
    settings = sqlite.Settings(path=path, lease_s=LEASE_S)
    backend = sqlite.Backend(settings)
    backend._store = Store(settings, clock, uptime or clock)
    return backend


def memory_backend(
    clock: Clock, max_messages: int = 1000, uptime: Clock | None = None
) -> memory.Backend:
    """On ``clock``, which is the ``uptime`` too unless there is another."""
    return memory.Backend(memory.Settings(max_messages=max_messages), clock, uptime or clock)


def declared(backend: Backend, semantics: Semantics, **settings: Any) -> ChannelSpec:
    """The channel ``c``, which exists from now on; a queue has the group ``g``."""
    groups = ("g",) if semantics is Semantics.QUEUE else ()
    spec = ChannelSpec(name="c", semantics=semantics, groups=groups, **settings)
    admin = backend.admin()
    admin.declare(spec)
    admin.close()
    return spec


def publish(backend: Backend, spec: ChannelSpec, bodies: Iterable[str], key: str | None) -> list:
    """Store messages; their outcomes."""
    producer = backend.producer(spec)
    outcomes: list = []
    producer.submit([Message(body.encode(), key) for body in bodies], outcomes.extend)
    producer.close(30)
    return outcomes


def consumer_spec(spec: ChannelSpec, member: str = "m", **settings: Any) -> ConsumerSpec:
    return ConsumerSpec(channel=spec, group="g", member=member, prefetch=1000, **settings)


def ack(incoming: Received) -> SettleRequest:
    return SettleRequest(incoming.token, Settlement.ACK)


def bodies(arrivals: Iterable[Received]) -> list[str]:
    return [(incoming.message.body or b"").decode() for incoming in arrivals]


class Events:
    """Core's side of a LogDriver: remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[int, ...]]] = []
        self.positions: dict[int, Place] = {}

    def assigned(
        self, partitions: Iterable[int], places: Mapping[int, Place] | None = None
    ) -> None:
        self.told.append(("assigned", tuple(partitions)))

    def revoked(self, partitions: Iterable[int]) -> dict[int, Place]:
        self.told.append(("revoked", tuple(partitions)))
        return {p: self.positions[p] for p in partitions if p in self.positions}

    def lost(self, partitions: Iterable[int]) -> None:
        self.told.append(("lost", tuple(partitions)))

    def skipped(self, partition: int, count: int) -> None:
        self.told.append(("skipped", (partition, count)))
