"""Everything that one consumer has received and not settled, shared by its users and its pump.

The pump (one thread) puts in what the driver received and takes out what the broker must be told;
users (any threads) take out deliveries and settle them. All state is under one lock, and no driver
is ever called with it held.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gearshift.driver import Incoming, Verdict
from gearshift.errors import AlreadySettled, Closed, GearshiftError, StaleDelivery
from gearshift.handling.lanes import Lanes
from gearshift.handling.rate_limit import RateLimit
from gearshift.ledger import Entry, Fate, Ledger, LogLedger, QueueLedger
from gearshift.stats import ReceiveStats, Timings

__all__ = ["Inbox"]

log = logging.getLogger("gearshift.consumer")

#: How long a revoked partition waits for what is being worked on, so that it need not come again.
REVOKE_DRAIN_S = 2.0

#: How often the pump settles while something is in hand, and looks up while nothing is. Seconds.
SETTLE_INTERVAL_S = 0.05
IDLE_INTERVAL_S = 0.5

#: On a log, work goes on behind an unsettled message for so many windows: what a crash repeats.
SPAN_FACTOR = 10

_WARN_STALLED_AFTER_S = 10.0

#: Verdict of a user → outcome of the delivery.
_OUTCOMES = {Verdict.ACK: "ack", Verdict.RETRY: "retry", Verdict.DISCARD: "reject"}


class Inbox:
    """A window of at most ``prefetch`` unsettled entries."""

    def __init__(
        self,
        prefetch: int,
        *,
        serial_keys: bool = False,
        rate_limit: RateLimit | None = None,
        stats: ReceiveStats | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prefetch = prefetch
        self._rate_limit = rate_limit
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._ledger: Ledger | None = None
        self._lanes = Lanes(serial_keys=serial_keys)
        self._owned: frozenset[int] = frozenset()  # partitions; empty on a queue
        self._seen: dict[int, int] = {}  # partition → highest offset ever handed out
        self._news = 0  # settled since the pump last took
        self._many_news = (prefetch + 1) // 2
        self._most_span = prefetch * SPAN_FACTOR
        self._draining = False  # a revocation waits for what is in hand
        self._telling = False  # the pump has taken and not yet told
        self._error: GearshiftError | None = None
        self._closed = False
        self._ready = False
        self._looked_at = self._moved_at = clock()  # the pump; a hand-out or a settlement
        self.stats = ReceiveStats(channel="", group=None) if stats is None else stats
        self.wake: Callable[[], None] = lambda: None  # the pump's driver, while it is connected

    # ── for users ──

    def next(self, max_messages: int, timeout_s: float | None) -> list[Entry]:
        """Up to ``max_messages`` entries as soon as there is one; empty after ``timeout_s``.

        Raises Closed, and what ended the pump.
        """
        deadline = None if timeout_s is None else self._clock() + timeout_s
        started, warned = self._clock(), False
        with self._changed:
            while True:
                entries = self._pop(max_messages)
                if entries:
                    return entries
                if self._closed:
                    raise Closed("this consumer is closed")
                if self._error is not None:
                    raise self._error
                now = self._clock()
                if deadline is not None and now >= deadline:
                    return []
                if not warned and now - started > _WARN_STALLED_AFTER_S and self._stalled():
                    warned = True
                    log.warning(
                        "all %d deliveries that prefetch allows are unsettled: "
                        "settle them with ack(), retry() or reject()",
                        self._prefetch,
                    )
                self._changed.wait(self._nap(now, deadline))

    def settle(self, entry: Entry, verdict: Verdict, delay_s: float = 0.0) -> None:
        """Record how ``entry`` ended. Raises StaleDelivery if that cannot matter any more."""
        with self._lock:
            ledger = self._ledger_of(entry)
            was_full = ledger.unsettled >= self._prefetch or ledger.span >= self._most_span
            ledger.settle(entry, verdict, delay_s)
            self._count(_OUTCOMES[verdict])
            self._news += 1
            if self._lanes.settled(entry) or self._draining:
                self._changed.notify_all()
            # Once is enough: the pump takes everything when it looks up.
            urgent = was_full or self._news == self._many_news
            wake = self.wake
        if urgent:
            wake()

    def require_live(self, entry: Entry) -> None:
        """Raise StaleDelivery if ``entry`` can no longer be settled; such attempts are counted."""
        with self._lock:
            self._ledger_of(entry)

    def hold(self, entry: Entry, delay_s: float) -> None:
        """Keep ``entry`` in hand and hand it out again after ``delay_s``."""
        with self._changed:
            self._ledger_of(entry)
            entry.retries += 1
            self._count(_OUTCOMES[Verdict.RETRY])
            self._lanes.hold(entry, self._clock() + delay_s)
            self._changed.notify_all()

    def handled(self, outcome: str, seconds: float) -> None:
        """A handler has worked on an entry for so long."""
        with self._lock:
            self.stats.handled.setdefault(outcome, Timings()).add(seconds)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until connected, assigned and positioned; False after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or self._closed, timeout_s)
            if self._error is not None:
                raise self._error
            return self._ready

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until every settlement has been told to the driver; False after the timeout."""
        self.wake()
        with self._changed:
            return self._changed.wait_for(lambda: not self._untold(), timeout_s)

    def owned(self) -> frozenset[int]:
        """The partitions that this consumer owns now."""
        with self._lock:
            return self._owned

    @property
    def unsettled(self) -> int:
        """How many entries are neither settled nor stale."""
        with self._lock:
            return self._ledger.unsettled if self._ledger is not None else 0

    def in_hand(self) -> list[Entry]:
        """Entries that the user has and has not settled."""
        with self._lock:
            entries = self._ledger.entries() if self._ledger is not None else ()
            return [entry for entry in entries if entry.fate is Fate.IN_HAND]

    def snapshot(self) -> ReceiveStats:
        """What was received and settled, and how it is now."""
        with self._lock:
            now = self._clock()
            blank = ReceiveStats(channel=self.stats.channel, group=self.stats.group)
            found = replace(blank + self.stats, unsettled=self.unsettled)
            if not self._closed:
                found.consumers = 1
                found.silent_s = now - self._looked_at
                found.stalled_s = now - self._moved_at if self._stalled() else 0.0
                found.error = None if self._error is None else str(self._error)
            return found

    def close(self) -> None:
        """No more hand-outs; waiting users get Closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # ── for the pump ──

    def connected(self, ledger: Ledger, wake: Callable[[], None], *, ready: bool) -> None:
        """A new driver: what it receives is settled through ``ledger``."""
        with self._changed:
            self._ledger, self.wake, self._ready = ledger, wake, ready
            self._changed.notify_all()

    def disconnected(self) -> None:
        """The driver is gone: everything unsettled is stale and will come again."""
        with self._changed:
            self._forget()
            self._ledger, self.wake, self._ready = None, lambda: None, False
            self._owned = frozenset()
            self._changed.notify_all()

    def forget(self) -> None:
        """The consumer is about to seek: what was received before means nothing now."""
        with self._changed:
            self._forget()
            self._seen.clear()

    def failed(self, error: GearshiftError) -> None:
        """The pump has ended and will not come back; users get ``error``."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def add(self, arrivals: Sequence[Incoming]) -> None:
        """What the driver received."""
        with self._changed:
            assert self._ledger is not None
            for incoming in arrivals:
                entry = Entry.of(incoming)
                self._ledger.add(entry)
                self._lanes.push(entry)
            self._changed.notify_all()

    def take(self) -> Any:
        """What the driver must be told now."""
        with self._changed:
            assert self._ledger is not None
            self._news = 0
            self._telling = True
            return self._ledger.take()

    def told(self, failures: int) -> None:
        """The driver was told what ``take`` gave; ``failures`` of it came too late."""
        with self._changed:
            self.stats.stale += failures
            self._telling = False
            self._changed.notify_all()

    def release_buffered(self) -> None:
        """Give back what was received and never handed out."""
        with self._lock:
            for entry in self._lanes.drain():
                if self._ledger is not None:
                    self._ledger.settle(entry, Verdict.RELEASE, 0.0)

    def room(self) -> int:
        """How many more may be received."""
        with self._lock:
            if self._closed:
                return 0  # others shall have what this consumer would not hand out
            return self._prefetch if self._ledger is None else self._room(self._ledger)

    def patience_s(self) -> float:
        """How long the driver may wait for messages before the pump must look up."""
        with self._lock:
            self._looked_at = self._clock()
            busy = self._ledger is not None and (self._ledger.unsettled or self._ledger.has_news())
            return SETTLE_INTERVAL_S if busy else IDLE_INTERVAL_S

    # ── for the driver of a log (LogEvents), on the pump's thread ──

    def assigned(self, partitions: Sequence[int]) -> None:
        log.debug("assigned partitions %s", list(partitions))
        with self._changed:
            self._ready = True
            self._owned |= frozenset(partitions)
            self._changed.notify_all()

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, int]:
        log.debug("revoked partitions %s", list(partitions))
        with self._changed:
            ledger = self._log_ledger()
            self._discard_undelivered(partitions)
            self._draining = True
            self._changed.wait_for(lambda: not ledger.in_hand(partitions), REVOKE_DRAIN_S)
            self._draining = False
            positions = ledger.positions(partitions)
            self._revoke(ledger, partitions)
            return positions

    def lost(self, partitions: Sequence[int]) -> None:
        log.warning("lost partitions %s before they could be handed over", list(partitions))
        with self._changed:
            self._revoke(self._log_ledger(), partitions)

    # ── inside, with the lock held ──

    def _ledger_of(self, entry: Entry) -> Ledger:
        """The ledger that can settle ``entry``; raises what ``require_live`` says."""
        if entry.fate is Fate.SETTLED:
            raise AlreadySettled(f"message {entry.message.id!r} was settled before")
        if entry.locked_until is not None:
            self._expire_if_over(entry)
        if entry.fate is not Fate.STALE and self._ledger is not None:
            return self._ledger
        self.stats.stale += 1
        raise StaleDelivery(
            f"message {entry.message.id!r} can no longer be settled: its connection, "
            "assignment or lease is gone",
            hint="it will be delivered again; make the handler idempotent on the message id",
        )

    def _room(self, ledger: Ledger) -> int:
        span_left = self._most_span - ledger.span
        return max(0, min(self._prefetch - ledger.unsettled, span_left))

    def _pop(self, max_messages: int) -> list[Entry]:
        if self._closed:
            return []
        now = self._clock()
        entries: list[Entry] = []
        if self._rate_limit is not None:
            max_messages = min(max_messages, self._rate_limit.allowance(now))
        while len(entries) < max_messages:
            entry = self._lanes.pop(now)
            if entry is None:
                break
            if entry.locked_until is not None and self._expire_if_over(entry):
                continue
            entry.fate = Fate.IN_HAND
            self._mark_seen(entry)
            entries.append(entry)
        if entries:
            self._moved_at = now
            self.stats.delivered += len(entries)
            self.stats.redelivered += sum(entry.redelivered is True for entry in entries)
        if self._rate_limit is not None:
            self._rate_limit.spend(len(entries))
        return entries

    def _count(self, outcome: str) -> None:
        self._moved_at = self._clock()
        self.stats.settled[outcome] += 1

    def _stalled(self) -> bool:
        """Every delivery that prefetch allows is with the user."""
        return self.room() == 0 and not self._lanes

    def _expire_if_over(self, entry: Entry) -> bool:
        """Drop an entry whose lock is over, before or after it was handed out."""
        if entry.locked_until is None or self._clock() < entry.locked_until:
            return False
        if isinstance(self._ledger, QueueLedger) and entry.fate is not Fate.STALE:
            self._ledger.expire(entry)
            self._lanes.settled(entry)
        return True

    def _mark_seen(self, entry: Entry) -> None:
        """On a log, remember how far this consumer has been: what it gets again is redelivered."""
        if entry.position is None:
            return
        partition, offset = entry.position.partition, entry.position.offset
        if offset > self._seen.get(partition, -1):
            self._seen[partition] = offset
        elif entry.redelivered is None:
            entry.redelivered = True

    def _nap(self, now: float, deadline: float | None) -> float | None:
        """How long to wait for a change; None where nothing but a change can help."""
        due = self._lanes.next_due()
        if self._rate_limit is not None and self._rate_limit.wait_s() > 0:
            due = now + self._rate_limit.wait_s()  # nothing can go before, due or not
        times = [moment - now for moment in (due, deadline) if moment is not None]
        return max(0.0, min([*times, _WARN_STALLED_AFTER_S]))

    def _untold(self) -> bool:
        return self._ledger is not None and (self._telling or self._ledger.has_news())

    def _forget(self) -> None:
        self._lanes.drain()
        self._news = 0
        self._telling = False
        if self._ledger is not None:
            self._ledger.abandon()

    def _log_ledger(self) -> LogLedger:
        assert isinstance(self._ledger, LogLedger)
        return self._ledger

    def _discard_undelivered(self, partitions: Sequence[int]) -> None:
        gone = set(partitions)
        self._lanes.discard(lambda e: e.position is not None and e.position.partition in gone)

    def _revoke(self, ledger: LogLedger, partitions: Sequence[int]) -> None:
        self._discard_undelivered(partitions)
        ledger.revoke(partitions)
        self._owned -= frozenset(partitions)
        self._changed.notify_all()
