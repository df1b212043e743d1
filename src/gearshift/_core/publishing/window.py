"""A bound on the messages and bytes that are in flight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

from gearshift._core.publishing.batch import Batch
from gearshift.errors import BackpressureError, GearshiftError

__all__ = ["TICK_S", "Window"]

#: A broker does not announce that it takes messages again, so it is asked so often. Seconds.
TICK_S = 0.25


@dataclass(slots=True, eq=False)
class Window:
    """Room for a number of messages and bytes; who finds none waits until a deadline.

    ``messages`` and ``bytes`` are in flight. The lock of ``changed`` guards them and is held by
    whoever calls a method; ``changed`` is notified when there may be room.
    """

    changed: Condition
    max_messages: int
    max_bytes: int
    clock: Callable[[], float]
    messages: int = 0
    bytes: int = 0

    def enter(
        self, batch: Batch, obstacle: Callable[[bool], GearshiftError | None], *, waits: bool
    ) -> None:
        """Take room for ``batch``; wait until its deadline while there is none, or an ``obstacle``.

        Raises the obstacle or the lack of room at the deadline, at once if not ``waits``.
        """
        while (reason := obstacle(waits) or self._full(batch)) is not None:
            left_s = batch.deadline - self.clock() if waits else 0.0
            if left_s <= 0:
                raise reason
            self.changed.wait(min(left_s, TICK_S))
        self.messages += len(batch.messages)
        self.bytes += batch.size

    def leave(self, batch: Batch) -> None:
        """Give back the room of ``batch``."""
        self.messages -= len(batch.messages)
        self.bytes -= batch.size
        self.changed.notify_all()

    def _full(self, batch: Batch) -> GearshiftError | None:
        over = self.messages + len(batch.messages) > self.max_messages or (
            self.bytes + batch.size > self.max_bytes
        )
        if not over or not self.messages:  # one batch always fits into an empty window
            return None
        return BackpressureError(
            f"{self.messages} messages ({self.bytes} bytes) wait for confirmation",
            hint="send more slowly, wait with flush(), or give a longer timeout_s",
        )
