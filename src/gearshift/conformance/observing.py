"""A backend whose consumers' partitions are written down: who was given which, and lost it when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gearshift.conformance.history import Event, History, Kind
from gearshift.driver import Backend, ConsumerSpec, LogDriver, LogEvents, Place

__all__ = ["observed"]


def observed(backend: Backend, history: History) -> Backend:
    """``backend``, which records in ``history`` what happens to the partitions of its consumers."""
    wrapped: Any = _Backend(backend, history)
    return wrapped  # type: ignore[no-any-return]


class _Backend:
    def __init__(self, backend: Backend, history: History) -> None:
        self._backend = backend
        self._history = history

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> Any:
        if spec.ephemeral:  # it shares partitions with nobody
            return self._backend.log_consumer(spec, events)
        watch = _Watch(self._history, spec, events)
        return _Driver(self._backend.log_consumer(spec, watch), watch)


class _Driver:
    """A LogDriver; closing it gives up what it still owns."""

    def __init__(self, driver: LogDriver, watch: _Watch) -> None:
        self._driver = driver
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def close(self, timeout_s: float) -> None:
        self._watch.closing()
        self._driver.close(timeout_s)


class _Watch:
    """LogEvents that are recorded and passed on. The consumer's thread."""

    def __init__(self, history: History, spec: ConsumerSpec, events: LogEvents) -> None:
        self._history = history
        self._spec = spec
        self._events = events
        self._owned: set[int] = set()

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None:
        self._owned.update(partitions)
        self._record(Kind.ASSIGN, partitions)
        self._events.assigned(partitions, places)

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        positions = self._events.revoked(partitions)
        self._let_go(partitions)
        return positions

    def lost(self, partitions: Sequence[int]) -> None:
        self._let_go(partitions)
        self._events.lost(partitions)

    def skipped(self, partition: int, count: int) -> None:
        self._events.skipped(partition, count)

    def closing(self) -> None:
        self._let_go(sorted(self._owned))

    def _let_go(self, partitions: Sequence[int]) -> None:
        self._owned.difference_update(partitions)
        self._record(Kind.REVOKE, partitions)

    def _record(self, kind: Kind, partitions: Sequence[int]) -> None:
        self._history.add(
            Event(
                kind=kind,
                actor=self._spec.member,
                channel=self._spec.channel.name,
                group=self._spec.group,
                partitions=tuple(partitions),
            )
        )
