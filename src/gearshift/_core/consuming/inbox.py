"""Everything that one consumer has received and not settled, shared by its users and its loop.

The loop (one thread) puts in what the driver received and takes out what the broker must be told;
users (any threads) take out deliveries and settle them. All state is under one lock, and no driver
is ever called with it held.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gearshift._core.consuming.key_order import KeyOrder
from gearshift._core.consuming.rate_limit import RateLimit
from gearshift._core.consuming.settlements import (
    Entry,
    Fate,
    LogSettlements,
    QueueSettlements,
    Settlements,
)
from gearshift._core.consuming.suspects import INSIST_S, TURN, Isolation, Mark, Turn
from gearshift.driver import Place, Received, Settlement
from gearshift.errors import AlreadySettled, Closed, GearshiftError, StaleDelivery
from gearshift.stats import ReceiveStats, Timings

__all__ = ["Inbox"]

log = logging.getLogger("gearshift.consumer")

#: How long a revoked partition waits for what is being worked on, so that it need not come again.
REVOKE_DRAIN_S = 2.0

#: How often the loop settles while something is in hand, and looks up while nothing is. Seconds.
SETTLE_INTERVAL_S = 0.05
IDLE_INTERVAL_S = 0.5

#: On a log, work goes on behind an unsettled message for so many windows: what a crash repeats.
SPAN_FACTOR = 10

#: How many messages are asked for before anything is known of their size.
_FIRST = 8

#: A user who gets nothing, because nothing is settled, is told so after that time, and again.
_WARN_STALLED_AFTER_S = 10.0
_WARN_AGAIN_AFTER_S = 60.0

#: Settlement → outcome of the delivery.
_OUTCOMES = {Settlement.ACK: "ack", Settlement.RETRY: "retry", Settlement.DISCARD: "reject"}


class Inbox:
    """A window of at most ``prefetch`` unsettled entries, and of about ``prefetch_bytes``.

    Nobody knows a message's size before it has come. So the window is closed when the bodies in it
    are that many bytes, and until then as many are asked for as fit if they are as large as those
    that came lately. One message may always be held, however large.
    """

    def __init__(
        self,
        prefetch: int,
        *,
        prefetch_bytes: int | None = None,
        serial_keys: bool = False,
        rate_limit: RateLimit | None = None,
        stats: ReceiveStats | None = None,
        clock: Callable[[], float] = time.monotonic,
        turn: Turn = TURN,
    ) -> None:
        self._prefetch = prefetch
        self._prefetch_bytes = prefetch_bytes
        self._usual_bytes: float | None = None  # of a message, lately
        self._rate_limit = rate_limit
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._settlements: Settlements | None = None
        self._key_order = KeyOrder(serial_keys=serial_keys)
        self._isolation = Isolation(turn, self)
        self._ends_turn = False  # once the driver is told what the loop has taken
        self._name = secrets.token_hex(4)  # in notes: which consumer stands in a partition
        self._waiting: deque[Entry] = deque()  # of a log: suspects, and what came behind them
        self._going: list[Entry] = []  # of these, those that go out once that is noted
        self._alone: Entry | None = None  # the suspect that went out last, in this consumer's turn
        self._owned: frozenset[int] = frozenset()  # partitions; empty on a queue
        self._seen: dict[int, int] = {}  # partition → highest offset ever handed out
        self._news = 0  # settled since the loop last took
        self._many_news = (prefetch + 1) // 2
        self._most_span = prefetch * SPAN_FACTOR
        self._draining = False  # a revocation waits for what is in hand
        self._telling = False  # the loop has taken and not yet told
        self._error: GearshiftError | None = None
        self._closed = False
        self._ready = False
        self._warn_at = 0.0  # not before
        self._return_at = math.inf  # what waits here goes back; too early does no harm
        self._moved_at = clock()  # a hand-out or a settlement
        self._heard_at = clock()  # the broker
        self._cut_off: GearshiftError | None = None  # why there is no connection
        self.stats = ReceiveStats(channel="", group=None) if stats is None else stats
        self.wake: Callable[[], None] = lambda: None  # the loop's driver, while it is connected

    # ── for users ──

    def next(self, max_messages: int, timeout_s: float | None) -> list[Entry]:
        """Up to ``max_messages`` entries as soon as there is one; empty after ``timeout_s``.

        Raises Closed, and what ended the loop.
        """
        deadline = None if timeout_s is None else self._clock() + timeout_s
        with self._lock:
            must_wake = not self._key_order and self._isolation.ask()
        if must_wake:
            self.wake()
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
                self._warn_if_stalled(now)
                held = self.unsettled - len(self._waiting) - len(self._going)
                insists = self._isolation.insist(held, now)
                if deadline is not None and now >= deadline:
                    return []
                self._isolation.asking += 1
                nap_s = self._nap(now, deadline)
                self._changed.wait(min(nap_s, INSIST_S) if insists else nap_s)
                self._isolation.asking -= 1

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float = 0.0) -> None:
        """Record how ``entry`` ended. Raises StaleDelivery if that cannot matter any more."""
        with self._lock:
            settlements = self._settlements_of(entry)
            was_full = self._isolation.active or not self._window_left(settlements)
            settlements.settle(entry, settlement, delay_s)
            self._count(_OUTCOMES[settlement])
            self._news += 1
            if self._key_order.settled(entry) or self._draining:
                self._changed.notify_all()
            # Once is enough: the loop takes everything when it looks up.
            urgent = was_full or self._news == self._many_news
            wake = self.wake
        if urgent:
            wake()

    def require_live(self, entry: Entry) -> None:
        """Raise StaleDelivery if ``entry`` can no longer be settled; such attempts are counted."""
        with self._lock:
            self._settlements_of(entry)

    def hold(self, entry: Entry, delay_s: float) -> None:
        """Keep ``entry`` in hand and hand it out again after ``delay_s``."""
        with self._changed:
            self._settlements_of(entry)
            entry.retries += 1
            self._count(_OUTCOMES[Settlement.RETRY])
            self._key_order.hold(entry, self._clock() + delay_s)
            self._changed.notify_all()

    def keep(self, entry: Entry, delay_s: float, obstacle: GearshiftError) -> None:
        """Hold an ``entry`` whose dead letter could not be stored, to try again in ``delay_s``."""
        with self._changed:
            self._settlements_of(entry)
            self._keep(entry, delay_s, obstacle)
            self._changed.notify_all()

    def handled(self, outcome: str, seconds: float) -> None:
        """A handler has worked on an entry for so long."""
        with self._lock:
            self.stats.handled.setdefault(outcome, Timings()).add(seconds)

    @property
    def ready(self) -> bool:
        """Whether it is connected, assigned and positioned."""
        return self._ready

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
            return self._settlements.unsettled if self._settlements is not None else 0

    def in_hand(self) -> list[Entry]:
        """Entries that the user has and has not settled."""
        with self._lock:
            entries = self._settlements.entries() if self._settlements is not None else ()
            return [entry for entry in entries if entry.fate is Fate.IN_HAND]

    def snapshot(self) -> ReceiveStats:
        """What was received and settled, and how it is now."""
        with self._lock:
            now = self._clock()
            blank = ReceiveStats(channel=self.stats.channel, group=self.stats.group)
            found = replace(blank + self.stats, unsettled=self.unsettled)
            if not self._closed:
                found.consumers = 1
                found.silent_s = max(0.0, now - self._heard_at)
                found.disconnected = None if self._cut_off is None else str(self._cut_off)
                found.stalled_s = now - self._moved_at if self._stalled() else 0.0
                found.error = None if self._error is None else str(self._error)
                held = self._settlements.entries() if self._settlements is not None else ()
                obstacles = [entry.obstacle for entry in held if entry.obstacle is not None]
                found.unstored = len(obstacles)
                found.obstacle = str(obstacles[0]) if obstacles else None
            return found

    def close(self) -> None:
        """No more hand-outs; waiting users get Closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # ── for the loop ──

    def connected(self, settlements: Settlements, wake: Callable[[], None], *, ready: bool) -> None:
        """A new driver: what it receives is settled through ``settlements``."""
        with self._changed:
            self._settlements, self.wake, self._ready = settlements, wake, ready
            self._changed.notify_all()

    def disconnected(self) -> None:
        """The driver is gone: everything unsettled is stale and will come again."""
        with self._changed:
            self._forget()
            self._settlements, self.wake, self._ready = None, lambda: None, False
            self._owned = frozenset()
            self._alone = None
            self._changed.notify_all()
        self._isolation.end_turn()

    def cut_off(self, failure: GearshiftError) -> None:
        """There is no connection, and why; the loop tries again."""
        self._cut_off = failure

    def heard(self, at: float | None = None) -> None:
        """The driver has served its connection, whose broker was last heard ``at`` (None: now)."""
        self._heard_at = self._clock() if at is None else at
        self._cut_off = None

    def forget(self) -> None:
        """The consumer is about to seek: what was received before means nothing now."""
        with self._changed:
            self._forget()
            self._seen.clear()

    def failed(self, error: GearshiftError) -> None:
        """The loop has ended and will not come back; users get ``error``."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def add(self, arrivals: Sequence[Received]) -> None:
        """What the driver received."""
        with self._changed:
            assert self._settlements is not None
            if isinstance(self._settlements, LogSettlements):
                self._add_to_log(self._settlements, arrivals)
                self._changed.notify_all()
                return
            is_wanted = self._isolation.admit(arrivals)
            if arrivals[0].return_at is not None:
                self._return_at = min(self._return_at, arrivals[0].return_at)
            for incoming in arrivals:
                entry = Entry.of(incoming)
                self._settlements.add(entry)
                self._learn(entry.size)
                if is_wanted:
                    if self._isolation.active:
                        self._alone = entry
                    self._key_order.push(entry)
                else:
                    self._settlements.settle(entry, Settlement.RELEASE, 0.0)
            self._changed.notify_all()

    def keep_unstored(self, incoming: Received, obstacle: GearshiftError) -> None:
        """Hold a message whose retry the driver could not store, for the retry's delay."""
        with self._changed:
            assert self._settlements is not None
            assert incoming.unstored is not None
            entry = Entry.of(incoming)
            self._settlements.add(entry)
            self._keep(entry, incoming.unstored.delay_s, obstacle)
            self._changed.notify_all()

    def take(self) -> Any:
        """What the driver must be told now."""
        with self._changed:
            assert self._settlements is not None
            self._return_what_waits_too_long(self._settlements)
            self._news = 0
            self._telling = True
            self._ends_turn = self._is_done_with_turn()
            if self._ends_turn:
                # Where none came, none is known of any more.
                self._isolation.active &= self._alone is not None
                self._alone = None
            if isinstance(self._settlements, LogSettlements) and not self._ends_turn:
                self._choose_from_waiting(self._settlements)
            return self._settlements.take()

    def told(self, failures: int) -> None:
        """The driver was told what ``take`` gave; ``failures`` of it came too late."""
        with self._changed:
            self.stats.stale += failures
            self._telling = False
            if isinstance(self._settlements, LogSettlements) and self._settlements.noted:
                for entry in self._going:
                    self._key_order.push(entry)
                self._going.clear()
            self._changed.notify_all()
        if self._ends_turn:
            self._ends_turn = False
            self._isolation.end_turn()
            self.wake()  # there may be more

    def leave(self) -> None:
        """The driver is about to be closed in an orderly way: the next ``take`` says so."""
        with self._lock:
            if isinstance(self._settlements, LogSettlements):
                self._settlements.leave()

    def room(self) -> int:
        """How many more may be received."""
        with self._lock:
            if self._closed:
                return 0  # others shall have what this consumer would not hand out
            return self._prefetch if self._settlements is None else self._room(self._settlements)

    def isolates(self) -> bool:
        """True if what was lost is to come alone."""
        with self._lock:
            return not self._isolation.together

    def patience_s(self) -> float:
        """How long the driver may wait for messages before the loop must look up."""
        with self._lock:
            busy = self._settlements is not None and (
                self._settlements.unsettled or self._settlements.has_news()
            )
            return SETTLE_INTERVAL_S if busy else IDLE_INTERVAL_S

    # ── for the driver of a log (LogEvents), on the loop's thread ──

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None:
        log.debug("assigned partitions %s", list(partitions))
        with self._changed:
            if places:
                marks = {p: Mark(at, self._name, self._prefetch) for p, at in places.items()}
                self._log_settlements().assign(marks)
            self._ready = True
            self._owned |= frozenset(partitions)
            self._changed.notify_all()

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        log.debug("revoked partitions %s", list(partitions))
        with self._changed:
            settlements = self._log_settlements()
            self._discard_undelivered(partitions)
            self._draining = True
            self._changed.wait_for(lambda: not settlements.in_hand(partitions), REVOKE_DRAIN_S)
            self._draining = False
            settlements.leave(partitions)
            positions = settlements.positions(partitions)
            self._revoke(settlements, partitions)
            return positions

    def lost(self, partitions: Sequence[int]) -> None:
        log.warning("lost partitions %s before they could be handed over", list(partitions))
        with self._changed:
            self._revoke(self._log_settlements(), partitions)

    def skipped(self, partition: int, count: int) -> None:
        log.warning(
            "channel %r, group %r, partition %d: %d messages were deleted by retention before they "
            "were read: raise retention_s, or work faster",
            self.stats.channel, self.stats.group, partition, count,
        )  # fmt: skip
        with self._lock:
            self.stats.skipped += count

    # ── inside, with the lock held ──

    def _settlements_of(self, entry: Entry) -> Settlements:
        """The settlements that can settle ``entry``; raises what ``require_live`` says."""
        if entry.fate is Fate.SETTLED:
            raise AlreadySettled(f"message {entry.message.id!r} was settled before")
        if entry.locked_until is not None:
            self._expire_if_over(entry)
        if entry.fate is not Fate.STALE and self._settlements is not None:
            return self._settlements
        self.stats.stale += 1
        raise StaleDelivery(
            f"message {entry.message.id!r} can no longer be settled: its connection, "
            "assignment or lease is gone",
            hint="it will be delivered again; make the handler idempotent on the message id",
        )

    def _keep(self, entry: Entry, delay_s: float, obstacle: GearshiftError) -> None:
        entry.obstacle = obstacle
        self._key_order.hold(entry, self._clock() + delay_s)

    def _add_to_log(self, settlements: LogSettlements, arrivals: Sequence[Received]) -> None:
        """Suspects wait here, as a log gives nothing back; and what comes behind them, in order."""
        for incoming in arrivals:
            entry = Entry.of(incoming)
            settlements.add(entry)
            self._learn(entry.size)
            self._isolation.active |= entry.lost > 0
            if self._isolation.active or self._waiting or self._going or not settlements.noted:
                self._waiting.append(entry)
            else:
                self._key_order.push(entry)

    def _choose_from_waiting(self, settlements: LogSettlements) -> None:
        """What goes out next: a suspect alone and when somebody asks, others as they came."""
        isolation, waiting = self._isolation, self._waiting
        isolation.active = isolation.active and any(entry.lost for entry in settlements.entries())
        isolation.together &= isolation.active
        if not waiting or self._going or self._closed:
            return
        if not isolation.together and self._alone is not None and not self._alone.has_ended:
            return
        while waiting and (isolation.together or not waiting[0].lost):
            self._going.append(waiting.popleft())
        if waiting and not self._going and isolation.room(settlements.unsettled - len(waiting)):
            self._alone = waiting.popleft()
            self._going.append(self._alone)
        for entry in self._going:
            if entry.lost:
                settlements.hold(entry)

    def _is_done_with_turn(self) -> bool:
        """True if it has the process's turn and its suspect has ended, or none came."""
        return self._isolation.has_turn and (self._alone is None or self._alone.has_ended)

    def _room(self, settlements: Settlements) -> int:
        if self._waiting or self._going:
            return 0
        if self._isolation.active and not self._isolation.together:
            is_log = isinstance(settlements, LogSettlements)
            return 0 if is_log else self._isolation.room(settlements.unsettled)
        return self._window_left(settlements)

    def _window_left(self, settlements: Settlements) -> int:
        span_left = self._most_span - settlements.span
        return max(
            0, min(self._prefetch - settlements.unsettled, span_left, self._fitting(settlements))
        )

    def _fitting(self, settlements: Settlements) -> int:
        """How many more of the usual size fit into ``prefetch_bytes``."""
        if self._prefetch_bytes is None:
            return self._prefetch
        if self._usual_bytes is None:
            return _FIRST
        left = self._prefetch_bytes - settlements.unsettled_bytes
        return max(int(left / self._usual_bytes), int(not settlements.unsettled))

    def _learn(self, size: int) -> None:
        """Larger messages count at once, smaller ones when there have been many."""
        usual = max(size, 1) if self._usual_bytes is None else self._usual_bytes
        self._usual_bytes = max(1.0, usual + (size - usual) / (2 if size > usual else 32))

    def _pop(self, max_messages: int) -> list[Entry]:
        if self._closed:
            return []
        now = self._clock()
        entries: list[Entry] = []
        if self._rate_limit is not None:
            max_messages = min(max_messages, self._rate_limit.allowance(now))
        while len(entries) < max_messages:
            entry = self._key_order.pop(now)
            if entry is None:
                break
            if entry.locked_until is not None and self._expire_if_over(entry):
                continue
            entry.fate = Fate.IN_HAND
            self._mark_seen(entry)
            entries.append(entry)
        if entries:
            self._moved_at = now
            self._isolation.answered(now)
            given = [entry for entry in entries if entry.dead is None]
            self.stats.delivered += len(given)
            self.stats.redelivered += sum(entry.redelivered is True for entry in given)
        if self._rate_limit is not None:
            self._rate_limit.spend(len(entries))
        return entries

    def _count(self, outcome: str) -> None:
        self._moved_at = self._clock()
        self.stats.settled[outcome] += 1

    def _stalled(self) -> bool:
        """Every delivery that prefetch allows is with the user."""
        settlements = self._settlements
        return (
            settlements is not None and not self._window_left(settlements) and not self._key_order
        )

    def _warn_if_stalled(self, now: float) -> None:
        """Somebody waits for a delivery, and forgotten settlements are why there is none."""
        silent_s = now - self._moved_at
        if silent_s < _WARN_STALLED_AFTER_S or now < self._warn_at or not self._stalled():
            return
        self._warn_at = now + _WARN_AGAIN_AFTER_S
        log.warning(
            "channel %r, group %r: no delivery, because %d are unsettled and none was settled for "
            "%.0f s: settle them with ack(), retry() or reject()",
            self.stats.channel, self.stats.group, self.unsettled, silent_s,
        )  # fmt: skip

    def _expire_if_over(self, entry: Entry) -> bool:
        """Drop an entry whose lock is over, before or after it was handed out."""
        if entry.locked_until is None or self._clock() < entry.locked_until:
            return False
        if isinstance(self._settlements, QueueSettlements) and entry.fate is not Fate.STALE:
            self._settlements.expire(entry)
            self._key_order.settled(entry)
        return True

    def _return_what_waits_too_long(self, settlements: Settlements) -> None:
        """Once one entry is to go back, all go that nobody has taken: their order stays."""
        now = self._clock()
        if now < self._return_at:
            return
        waiting = [
            (entry, entry.return_at)
            for entry in settlements.entries()
            if entry.fate is Fate.BUFFERED and entry.return_at is not None
        ]
        self._return_at = min((moment for _, moment in waiting), default=math.inf)
        if self._return_at > now:
            return
        self._return_at = math.inf
        self._key_order.discard(lambda e: e.fate is Fate.BUFFERED and e.return_at is not None)
        for entry, _ in waiting:
            settlements.settle(entry, Settlement.RELEASE, 0.0)

    def _mark_seen(self, entry: Entry) -> None:
        """On a log, remember how far this consumer has been: what it gets again is redelivered."""
        if entry.position is None:
            return
        partition, offset = entry.position.partition, entry.position.offset
        if offset > self._seen.get(partition, -1):
            self._seen[partition] = offset
        elif entry.redelivered is None:
            entry.redelivered = True

    def _nap(self, now: float, deadline: float | None) -> float:
        """How long to wait for a change before looking again."""
        due = self._key_order.next_due()
        if self._rate_limit is not None and self._rate_limit.wait_s() > 0:
            due = now + self._rate_limit.wait_s()  # nothing can go before, due or not
        times = [moment - now for moment in (due, deadline) if moment is not None]
        return max(0.0, min([*times, _WARN_STALLED_AFTER_S]))

    def _untold(self) -> bool:
        return self._settlements is not None and (self._telling or self._settlements.has_news())

    def _forget(self) -> None:
        self._key_order.drain()
        self._return_at = math.inf
        self._waiting.clear()
        self._going.clear()
        self._news = 0
        self._telling = False
        if self._settlements is not None:
            self._settlements.abandon()

    def _log_settlements(self) -> LogSettlements:
        assert isinstance(self._settlements, LogSettlements)
        return self._settlements

    def _discard_undelivered(self, partitions: Sequence[int]) -> None:
        gone = set(partitions)

        def is_gone(entry: Entry) -> bool:
            return entry.position is not None and entry.position.partition in gone

        self._key_order.discard(is_gone)
        self._waiting = deque(entry for entry in self._waiting if not is_gone(entry))
        self._going = [entry for entry in self._going if not is_gone(entry)]

    def _revoke(self, settlements: LogSettlements, partitions: Sequence[int]) -> None:
        self._discard_undelivered(partitions)
        settlements.revoke(partitions)
        self._owned -= frozenset(partitions)
        self._changed.notify_all()
