"""The delivery window as the consumer loop and the driver of a log use it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gearshift._core.consuming.log_settlements import LogSettlements
from gearshift._core.consuming.settlements import Report, Settlements
from gearshift._core.consuming.shared import SharedWindow, no_wake
from gearshift.driver import Place, Received
from gearshift.errors import GearshiftError

__all__ = ["Fetch", "LoopSide", "PartitionEvents"]

log = logging.getLogger("gearshift.consumer")

#: How often the loop reports while something is unsettled, and looks up while nothing is. Seconds.
SETTLE_INTERVAL_S = 0.05
IDLE_INTERVAL_S = 0.5

#: How long a revoked partition waits for what is being worked on, so that it need not come again.
REVOKE_DRAIN_S = 2.0


class Fetch(NamedTuple):
    """How the driver is to receive: ``room`` messages at most, within ``patience_s`` seconds.

    With ``isolates`` a message that was lost is to come alone.
    """

    room: int
    patience_s: float
    isolates: bool


class LoopSide:
    """Puts into the window what the driver received, and takes out what it must be told.

    On the loop's thread. All state is that of the ``SharedWindow``, under its lock.
    """

    def __init__(self, shared: SharedWindow) -> None:
        self.shared = shared
        self._window = shared.window

    def connected(self, settlements: Settlements, wake: Callable[[], None], *, ready: bool) -> None:
        """A new driver: what it receives is settled through ``settlements``."""
        with self.shared.changed:
            self._window.connect(settlements)
            self.shared.wake, self.shared.ready = wake, ready
            self.shared.changed.notify_all()

    def disconnected(self) -> None:
        """The driver is gone: everything unsettled is stale and will come again."""
        with self.shared.changed:
            self._window.disconnect()
            self.shared.wake, self.shared.ready = no_wake, False
            self.shared.changed.notify_all()
        self.shared.turn.end(self.shared)

    def cut_off(self, failure: GearshiftError) -> None:
        """There is no connection, and why; the loop tries again."""
        self.shared.cut_off = failure

    def heard(self, at: float | None) -> None:
        """The driver has served its connection, whose broker was last heard ``at`` (None: now)."""
        self.shared.heard_at = self.shared.clock() if at is None else at
        self.shared.cut_off = None

    def failed(self, error: GearshiftError) -> None:
        """The loop has ended and will not come back; users get ``error``."""
        with self.shared.changed:
            self.shared.error = error
            self.shared.changed.notify_all()

    def forget(self) -> None:
        """The consumer is about to seek: what was received before means nothing now."""
        with self.shared.changed:
            self._window.forget()

    def fetch(self) -> Fetch:
        """How the driver is to receive now."""
        with self.shared.lock:
            patience_s = SETTLE_INTERVAL_S if self._window.is_busy else IDLE_INTERVAL_S
            return Fetch(self._window.room(), patience_s, not self._window.isolation.together)

    def add(self, arrivals: Sequence[Received]) -> None:
        """Take on what the driver has received."""
        with self.shared.changed:
            self._window.add(arrivals)
            self.shared.changed.notify_all()

    def keep_unstored(self, received: Received, obstacle: GearshiftError) -> None:
        """Hold a message whose retry the driver could not store, for the retry's delay."""
        with self.shared.changed:
            self._window.keep_unstored(received, obstacle, self.shared.clock())
            self.shared.changed.notify_all()

    def take(self) -> Report:
        """What the driver must be told now."""
        with self.shared.lock:
            return self._window.take(self.shared.clock())

    def told(self, report: Report, *, failures: int = 0, noted: bool = False) -> None:
        """See DeliveryWindow.told."""
        with self.shared.changed:
            self._window.told(report, failures=failures, noted=noted)
            self.shared.changed.notify_all()
        if report.ends_turn:
            self.shared.turn.end(self.shared)
            self.shared.wake()  # there may be more

    def leave(self) -> None:
        """The driver is about to be closed in an orderly way: the next report says so."""
        with self.shared.lock:
            self._window.leave()


class PartitionEvents:
    """``LogEvents`` of one connection, on the loop's thread; state as for ``LoopSide``."""

    def __init__(self, shared: SharedWindow, settlements: LogSettlements) -> None:
        self._shared = shared
        self._window = shared.window
        self._settlements = settlements

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None:
        log.debug("assigned partitions %s", list(partitions))
        with self._shared.changed:
            self._settlements.assign(places or {})
            self._shared.ready = True
            self._window.owned |= frozenset(partitions)
            self._shared.changed.notify_all()

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        log.debug("revoked partitions %s", list(partitions))
        shared, settlements = self._shared, self._settlements
        with shared.changed:
            self._withdraw(partitions)
            shared.draining = True
            shared.changed.wait_for(lambda: not settlements.in_hand(partitions), REVOKE_DRAIN_S)
            shared.draining = False
            settlements.leave(partitions)
            positions = settlements.positions(partitions)
            self._revoke(partitions)
            return positions

    def lost(self, partitions: Sequence[int]) -> None:
        log.warning("lost partitions %s before they could be handed over", list(partitions))
        with self._shared.changed:
            self._revoke(partitions)

    def skipped(self, partition: int, count: int) -> None:
        stats = self._window.stats
        log.warning(
            "channel %r, group %r, partition %d: %d messages were deleted by retention before they "
            "were read: raise retention_s, or work faster",
            stats.channel, stats.group, partition, count,
        )  # fmt: skip
        with self._shared.lock:
            stats.skipped += count

    def _revoke(self, partitions: Sequence[int]) -> None:
        self._withdraw(partitions)
        self._settlements.revoke(partitions)
        self._window.owned -= frozenset(partitions)
        self._shared.changed.notify_all()

    def _withdraw(self, partitions: Sequence[int]) -> None:
        """Hand out nothing of these partitions that waits here."""
        self._window.key_order.discard(lambda entry: entry.lies_in(partitions))
        self._settlements.withdraw(partitions)
