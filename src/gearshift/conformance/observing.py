"""A backend whose consumers' partitions are recorded: who was given which, and lost it when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gearshift.chaos import ChaosBackend
from gearshift.conformance.history import Event, History, Kind
from gearshift.driver import Backend, ConsumerSpec, LogDriver, LogEvents, Place
from gearshift.driver.helpers import Wrapper

__all__ = ["observed"]


def observed(backend: Backend, history: History) -> Backend:
    """``backend``, which records in ``history`` what happens to the partitions of its consumers.

    Connections that chaos takes away are faults.
    """
    if isinstance(backend, ChaosBackend):
        backend.on_loss = lambda text: history.add(Event(kind=Kind.FAULT, note=text))
    wrapped: Any = _Backend(backend, history)
    return wrapped  # type: ignore[no-any-return]


class _Backend(Wrapper):
    def __init__(self, backend: Backend, history: History) -> None:
        super().__init__(backend)
        self._history = history

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> Any:
        if spec.ephemeral:  # it shares partitions with nobody
            return self.inner.log_consumer(spec, events)
        recorded: Any = _Events(events, self._history, spec)
        return _Driver(self.inner.log_consumer(spec, recorded), recorded)


class _Driver(Wrapper):
    """A LogDriver; closing it gives up what it still owns."""

    def __init__(self, driver: LogDriver, events: _Events) -> None:
        super().__init__(driver)
        self._events = events

    def close(self, timeout_s: float) -> None:
        self._events.closing()
        self.inner.close(timeout_s)


class _Events(Wrapper):
    """LogEvents that are recorded and passed on. The consumer's thread."""

    def __init__(self, events: LogEvents, history: History, spec: ConsumerSpec) -> None:
        super().__init__(events)
        self._history = history
        self._spec = spec
        self._owned: set[int] = set()

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None:
        self._owned.update(partitions)
        self._record(Kind.ASSIGN, partitions)
        self.inner.assigned(partitions, places)

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        positions: Mapping[int, Place] = self.inner.revoked(partitions)
        self._let_go(partitions)
        return positions

    def lost(self, partitions: Sequence[int]) -> None:
        self._let_go(partitions)
        self.inner.lost(partitions)

    def closing(self) -> None:
        self._let_go(sorted(self._owned))

    def _let_go(self, partitions: Sequence[int]) -> None:
        self._owned.difference_update(partitions)
        self._record(Kind.REVOKE, partitions)

    def _record(self, kind: Kind, partitions: Sequence[int]) -> None:
        self._history.add(
            Event(
                kind=kind,
                who=self._spec.member,
                channel=self._spec.channel.name,
                group=self._spec.group,
                partitions=tuple(partitions),
            )
        )
