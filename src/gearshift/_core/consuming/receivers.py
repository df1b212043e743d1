"""A connected driver between the broker and the delivery window: of a queue, or of a log."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from gearshift._core.consuming.log_settlements import LogSettlements
from gearshift._core.consuming.settlements import QueueSettlements, Report
from gearshift._core.consuming.shared_window import SharedWindow, no_wake
from gearshift.driver import (
    LogDriver,
    LogEvents,
    Place,
    QueueDriver,
    Received,
    SettleFailure,
    Start,
)
from gearshift.errors import GearshiftError

__all__ = ["IDLE_INTERVAL_S", "LogReceiver", "QueueReceiver", "Receiver"]

log = logging.getLogger("gearshift.consumer")

#: How often the loop reports while something is unsettled, and looks up while nothing is. Seconds.
SETTLE_INTERVAL_S = 0.05
IDLE_INTERVAL_S = 0.5

#: How long a revoked partition waits for what is being worked on, so that it need not come again.
REVOKE_DRAIN_S = 2.0

#: How long the broker may take to store notes before the driver's connection is served again.
_STORE_NOTES_S = 2.0


class Receiver(ABC):
    """Puts into the window what its driver received, and tells the driver what is settled.

    On the loop's thread. The state is that of the ``SharedWindow``, under its lock; no driver is
    called with it.
    """

    driver: QueueDriver | LogDriver

    def __init__(self, shared: SharedWindow) -> None:
        self._shared = shared
        self._window = shared.window

    def receive(self, most_s: float = IDLE_INTERVAL_S) -> Sequence[Received]:
        """Serve the connection and receive what there is room for, within ``most_s`` seconds.

        Returns messages whose retry could not be stored: see ``keep_unstored``.
        """
        with self._shared.lock:
            patience_s = min(most_s, SETTLE_INTERVAL_S if self._window.is_busy else most_s)
            room, together = self._window.room(), self._window.isolation.together
        self._isolate(not together)
        arrivals = self.driver.receive(room, patience_s)
        self._shared.heard(self.driver.heard_at)
        self._shared.drained = self.driver.drained
        self._tell_overdue()
        if arrivals and arrivals[0].unstored is not None:
            return arrivals
        if arrivals:
            self.add(arrivals)
        return ()

    def _tell_overdue(self) -> None:
        """Log what users have had in hand for too long, once each."""
        shared, window = self._shared, self._window
        now = shared.clock()
        if not window.in_hand.is_due(now):
            return
        with shared.lock:
            late = window.in_hand.overdue(window.entries(), now)
        for entry in late:
            log.warning(
                "channel %r, group %r: message %r was delivered %.0f s ago and is not settled: its "
                "handler hangs, or nobody settled it%s",
                window.stats.channel, window.stats.group, entry.message.id, now - entry.given_at,
                "" if entry.position is None else "; its partition does not get past it",
            )  # fmt: skip

    def add(self, arrivals: Sequence[Received]) -> None:
        """Take on what the driver has received."""
        with self._shared.changed:
            self._window.add(arrivals)
            self._shared.changed.notify_all()
        time.sleep(0)  # the interpreter is for those who were woken, before the next report

    def keep_unstored(self, received: Received, obstacle: GearshiftError) -> None:
        """See DeliveryWindow.keep_unstored."""
        with self._shared.changed:
            self._window.keep_unstored(received, obstacle, self._shared.clock())
            self._shared.changed.notify_all()

    def report(self) -> Sequence[SettleFailure]:
        """Tell the driver what is settled; returns what came too late."""
        shared = self._shared
        with shared.lock:
            report = self._window.take(shared.clock())
        failures, noted = self._tell(report)
        with shared.changed:
            self._window.reported(report, failures=len(failures), noted=noted)
            shared.changed.notify_all()
        if report.ends_turn:
            shared.turn.end(shared)
            shared.wake()  # there may be more
        return failures

    def leave(self) -> None:
        """Have the next report say that this consumer leaves in an orderly way."""
        with self._shared.lock:
            self._window.leave()

    def seek(self, start: Start) -> None:
        """Continue at ``start``: what was received before means nothing now."""
        raise NotImplementedError("a queue has no history")  # which Consumer.seek has said

    def _isolate(self, wanted: bool) -> None:
        """Have lost messages come alone, or not. On a log they are withheld here."""
        return

    @abstractmethod
    def _tell(self, report: Report) -> tuple[Sequence[SettleFailure], bool]:
        """Returns what came too late, and True if notes are stored."""


class QueueReceiver(Receiver):
    """Settles message by message."""

    driver: QueueDriver

    def __init__(self, shared: SharedWindow, connect: Callable[[], QueueDriver]) -> None:
        super().__init__(shared)
        self.driver = connect()
        self._isolates = True  # as a new driver does
        settlements = QueueSettlements(self.driver.cumulative_ack)
        shared.connected(settlements, self.driver.wake, ready=True)

    def receive(self, most_s: float = IDLE_INTERVAL_S) -> Sequence[Received]:
        """See Receiver."""
        unstored = super().receive(most_s)
        if count := self.driver.skipped():
            stats = self._window.stats
            log.warning(
                "channel %r, group %r: %d messages were deleted by others before they were "
                "handled: whoever trims it must keep more, or handlers be quicker",
                stats.channel, stats.group, count,
            )  # fmt: skip
            with self._shared.lock:
                stats.skipped += count
        return unstored

    def _isolate(self, wanted: bool) -> None:
        if wanted != self._isolates:
            self._isolates = wanted
            self.driver.isolate(wanted)

    def _tell(self, report: Report) -> tuple[Sequence[SettleFailure], bool]:
        return (self.driver.settle(report.settlements) if report.settlements else ()), False


class LogReceiver(Receiver, LogEvents):
    """Commits places, and hears from its driver of partitions that come and go."""

    driver: LogDriver

    def __init__(self, shared: SharedWindow, connect: Callable[[LogEvents], LogDriver]) -> None:
        super().__init__(shared)
        self._settlements = LogSettlements(shared.name, self._window.prefetch)
        # First, as a driver may assign partitions while it is being made.
        shared.connected(self._settlements, no_wake, ready=False)
        self.driver = connect(self)
        shared.wake = self.driver.wake

    def seek(self, start: Start) -> None:
        with self._shared.lock:
            self._window.forget()
        self.driver.seek(start)

    def _tell(self, report: Report) -> tuple[Sequence[SettleFailure], bool]:
        if report.places:
            self.driver.commit(report.places)
        return (), report.notes > 0 and self.driver.flush(_STORE_NOTES_S)

    # ── LogEvents ──

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None:
        log.debug("assigned partitions %s", list(partitions))
        self._shared.turn_taken()
        with self._shared.changed:
            self._settlements.holder = self._shared.name
            self._settlements.assign(places or {})
            self._shared.ready = True
            self._window.owned |= frozenset(partitions)
            self._shared.changed.notify_all()

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        log.debug("revoked partitions %s", list(partitions))
        shared, settlements = self._shared, self._settlements
        with shared.changed:
            shared.draining = True
            self._withdraw(partitions)
            shared.changed.wait_for(lambda: not self._in_hand(partitions), REVOKE_DRAIN_S)
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

    def _in_hand(self, partitions: Sequence[int]) -> bool:
        self._window.settle_acked()
        return self._settlements.in_hand(partitions)

    def _revoke(self, partitions: Sequence[int]) -> None:
        self._window.settle_acked()
        self._withdraw(partitions)
        gone = [entry for entry in self._settlements.entries() if entry.lies_in(partitions)]
        self._window.in_hand.abandon(gone)
        self._settlements.revoke(partitions)
        self._window.owned -= frozenset(partitions)
        self._shared.changed.notify_all()

    def _withdraw(self, partitions: Sequence[int]) -> None:
        """Hand out nothing of these partitions that waits here."""
        self._window.key_order.discard(lambda entry: entry.lies_in(partitions))
        self._settlements.withdraw(partitions)
