"""The delivery window of a consumer: what it has received and not settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gearshift._core.consuming.entry import IN_HAND, SETTLED, STALE, Entry
from gearshift._core.consuming.gathering import Gathering
from gearshift._core.consuming.in_hand import InHand
from gearshift._core.consuming.key_order import KeyOrder
from gearshift._core.consuming.rate_limit import RateLimit
from gearshift._core.consuming.settlements import QueueSettlements, Report, Settlements
from gearshift._core.consuming.suspects import Isolation
from gearshift.driver import Received, Settlement
from gearshift.errors import AlreadySettled, GearshiftError, StaleDelivery
from gearshift.stats import ReceiveStats

__all__ = ["DeliveryWindow"]

#: On a log, work goes on behind an unsettled message for so many windows: what a crash repeats.
SPAN_FACTOR = 10

#: How many messages are asked for before anything is known of their size.
_FIRST = 8

_OUTCOMES = {Settlement.RETRY: "retry", Settlement.DISCARD: "reject"}


class DeliveryWindow:
    """At most ``prefetch`` unsettled entries, of about ``prefetch_bytes``.

    Has neither lock nor clock: its callers lock (see ``SharedWindow``) and say what time it is, in
    seconds. Nobody knows a message's size before it has come, so the window is full once its bodies
    are that many bytes, and until then it has room for as many as fit if they are as large as those
    that came lately. One message always fits, however large.
    """

    def __init__(
        self,
        prefetch: int,
        *,
        prefetch_bytes: int | None = None,
        serial_keys: bool = False,
        rate_limit: RateLimit | None = None,
        longest_s: float | None = None,
        stats: ReceiveStats | None = None,
    ) -> None:
        self.prefetch = prefetch
        self.in_hand = InHand(longest_s)
        self.stats = ReceiveStats(channel="", group=None) if stats is None else stats
        self.isolation = Isolation()
        self.key_order = KeyOrder(serial_keys=serial_keys)  # what may be handed out
        self.owned: frozenset[int] = frozenset()  # partitions; empty on a queue
        #: Handled, and not yet recorded as settled: the one thing that users write without the
        #: lock. ``settle_acked`` empties it, before anything depends on what is settled.
        self.acked: deque[Entry] = deque()
        self.many_acked = (prefetch + 1) // 2  # half of a window: for so many the loop is woken
        self.is_woken = False  # for these
        self.closed = False  # nothing more is handed out
        self.moved_at = 0.0  # the last hand-out or settlement
        self._settlements: Settlements = QueueSettlements(cumulative=False)  # of this connection
        self._rate_limit = rate_limit
        self._prefetch_bytes = prefetch_bytes
        self._usual_bytes: float | None = None  # of a message, lately
        self._most_span = prefetch * SPAN_FACTOR
        self._news = 0  # settled since the last report
        self._is_reporting = False  # a report is taken and not yet made
        self._is_starved = False  # there was no room when the loop looked last
        self._seen: dict[int, int] = {}  # partition → highest offset ever handed out

    @property
    def unsettled(self) -> int:
        """Number of entries that are neither settled nor stale."""
        self.settle_acked()
        return self._settlements.unsettled

    @property
    def has_news(self) -> bool:
        """True while the driver does not know of every settlement."""
        return self._is_reporting or bool(self.acked or self._settlements.news)

    @property
    def is_busy(self) -> bool:
        """True while something is unsettled or not yet taken as a report."""
        return self.unsettled > 0 or bool(self._settlements.news)

    @property
    def is_stalled(self) -> bool:
        """True if every delivery that the window allows is with the user."""
        self.settle_acked()
        return not self._left() and not self.key_order

    def entries(self) -> list[Entry]:
        """The unsettled entries."""
        self.settle_acked()
        return list(self._settlements.entries())

    # ── connections ──

    def connect(self, settlements: Settlements) -> None:
        """Settle through ``settlements`` what is received from now on."""
        self._settlements = settlements

    def disconnect(self) -> None:
        """Everything unsettled is stale and will come again."""
        self._abandon()
        self._settlements = QueueSettlements(cumulative=False)
        self.owned = frozenset()
        self.isolation.suspect = None
        self.isolation.has_turn = False

    def forget(self) -> None:
        """The consumer seeks: what was received before is stale, and nothing is known as seen."""
        self._abandon()
        self._seen.clear()

    def _abandon(self) -> None:
        self.in_hand.abandon(self.entries())
        self.key_order.clear()
        self._news = 0
        self._is_reporting = False
        self._settlements.abandon()

    # ── arrivals ──

    def room(self) -> int:
        """Number of messages that may be received."""
        room = self._room()
        self._is_starved = not room
        full = self.prefetch if room else self._settlements.unsettled
        self.many_acked = max(1, (full + 1) // 2)
        return room

    def _room(self) -> int:
        if self.closed or self._settlements.withheld:
            return 0  # others shall have what this consumer would not hand out
        if self.isolation.active and not self.isolation.together:
            return self._settlements.room_for_suspect(self.isolation)
        return self._left()

    def add(self, arrivals: Sequence[Received]) -> None:
        """Take on what the driver has received."""
        entries = [Entry.of(received) for received in arrivals]
        if self._prefetch_bytes is not None:
            self._learn([entry.size for entry in entries])
        self.key_order.extend(self._settlements.admit(entries, self.isolation))

    def keep_unstored(self, received: Received, obstacle: GearshiftError, now: float) -> None:
        """Hold a message whose retry the driver could not store, for the retry's delay."""
        assert received.unstored is not None
        entry = Entry.of(received)
        self._settlements.add((entry,))
        entry.obstacle = obstacle
        self.key_order.hold(entry, now + received.unstored.delay_s)

    def _left(self) -> int:
        settlements = self._settlements
        left = min(self.prefetch - settlements.unsettled, self._most_span - settlements.span)
        if left <= 0 or self._prefetch_bytes is None:
            return max(0, left)
        if self._usual_bytes is None:
            return min(left, _FIRST)
        fitting = int((self._prefetch_bytes - settlements.unsettled_bytes) / self._usual_bytes)
        return min(left, max(fitting, int(not settlements.unsettled)))

    def _learn(self, sizes: Sequence[int]) -> None:
        """Larger messages count at once, smaller ones when there have been many."""
        largest, mean = max(sizes), sum(sizes) / len(sizes)
        usual = self._usual_bytes or max(largest, 1.0)
        if largest > usual:
            usual = (usual + largest) / 2
        else:
            usual += (mean - usual) * min(0.5, len(sizes) / 32)
        self._usual_bytes = max(1.0, usual)

    # ── hand-out ──

    def pop(self, max_messages: int, user: int | Gathering, now: float) -> list[Entry]:
        """Up to ``max_messages`` entries for ``user``, a thread, task or batch; empty if none."""
        if self.closed:
            return []
        if self._rate_limit is not None:
            max_messages = min(max_messages, self._rate_limit.allowance(now))
        if isinstance(user, Gathering):
            entries = self._gather(max_messages, now, user)
        else:
            entries = self._take(max_messages, now)
        if entries:
            self._hand_out(entries, now)
            self.moved_at = now
            self.isolation.answered(user, now)
            if self._rate_limit is not None:
                self._rate_limit.spend(len(entries))
        return entries

    def _take(self, most: int, now: float) -> list[Entry]:
        entries: list[Entry] = []
        while (left := most - len(entries)) > 0 and (found := self.key_order.take(left, now)):
            entries += [
                entry
                for entry in found
                if entry.locked_until is None or not self._expire_if_over(entry, now)
            ]
        return entries

    def _gather(self, most: int, now: float, batch: Gathering) -> list[Entry]:
        entries: list[Entry] = []
        while len(entries) < most and (entry := self.key_order.pop(now, batch)) is not None:
            if entry.locked_until is not None and self._expire_if_over(entry, now):
                continue
            if not batch.admit(entry):
                self.key_order.put_back(entry)
                break
            entries.append(entry)
            if batch.is_complete:
                break
        return entries

    def ask(self) -> bool:
        """A user is about to wait. True if the driver fetches the next message only when woken.

        So it is for a suspect, and where there was no room and something was settled since.
        """
        is_suspect_wanted = not self.key_order and self.isolation.ask()
        return is_suspect_wanted or (self._is_starved and bool(self._news or self.acked))

    def insist(self, user: int | Gathering, now: float) -> bool:
        """The ``user`` gets nothing. True if more comes once it has asked for long enough."""
        return self.isolation.insist(user, self.unsettled - self._settlements.withheld, now)

    def next_due(self, now: float) -> float | None:
        """When something that waits here may be handed out; None if that takes an event."""
        if self._rate_limit is not None and self._rate_limit.wait_s() > 0:
            return now + self._rate_limit.wait_s()  # nothing may go before, due or not
        return self.key_order.next_due()

    def _hand_out(self, entries: Sequence[Entry], now: float) -> None:
        """Count them. On a log, remember how far they go: what comes again is redelivered."""
        seen, dead, redelivered = self._seen, 0, 0
        for entry in entries:
            entry.state = IN_HAND
            entry.given_at = now
            position = entry.position
            if position is not None:
                if position.offset > seen.get(position.partition, -1):
                    seen[position.partition] = position.offset
                elif entry.redelivered is None:
                    entry.redelivered = True
            if entry.dead is not None:
                dead += 1
            elif entry.redelivered:
                redelivered += 1
        self.stats.delivered += len(entries) - dead
        self.stats.redelivered += redelivered

    # ── settling ──

    @property
    def is_watched(self) -> bool:
        """True if somebody waits for what is settled, so that ``acked`` must not wait.

        For the rest of a key, for a suspect's end, or for a message while there is no room.
        """
        isolation = self.isolation
        return bool(isolation.asking or isolation.active or self.key_order.busy)

    def settle_acked(self) -> tuple[bool, bool]:
        """Record as settled what is ``acked``; the flags are those of ``settle``.

        What came to another end meanwhile, with its connection or by a retry, has not been acked.
        """
        acked, self.is_woken = self.acked, False
        entries = [acked.popleft() for _ in range(len(acked))]
        live = [entry for entry in entries if entry.state is IN_HAND]
        if not live:
            return False, False
        self._settlements.ack(live)
        self.stats.settled["ack"] += len(live)
        freed = [self.key_order.settled(entry) for entry in live] if self.key_order.busy else []
        return self._is_urgent(len(live)), any(freed)

    def settle(
        self, entry: Entry, settlement: Settlement, delay_s: float, now: float
    ) -> tuple[bool, bool]:
        """Record how ``entry`` ended. Raises as ``require_live``.

        Returns two flags: the loop must report at once; other entries may now be handed out.
        """
        if entry.state is not IN_HAND or entry.locked_until is not None:
            self.require_live(entry, now)
        self._settlements.settle(entry, settlement, delay_s)
        # Nearly every one is an ack, and the hash of an enum's member is dear.
        self._count("ack" if settlement is Settlement.ACK else _OUTCOMES[settlement], now)
        return self._is_urgent(1), bool(self.key_order.busy) and self.key_order.settled(entry)

    def _is_urgent(self, count: int) -> bool:
        """True if the loop must report at once, now that ``count`` more are settled.

        Waking it once is enough, as it takes everything when it looks up.
        """
        self._news += count
        is_much = self._news - count < self.many_acked <= self._news
        is_wanted = self._is_starved and self.isolation.asking > 0
        return is_much or is_wanted or self.isolation.active

    def hold(
        self, entry: Entry, delay_s: float, now: float, obstacle: GearshiftError | None = None
    ) -> None:
        """Keep ``entry`` and hand it out again after ``delay_s``. Raises as ``require_live``.

        With an ``obstacle`` this is not a retry: its retry or dead letter could not be stored.
        """
        self.require_live(entry, now)
        if obstacle is None:
            entry.retries += 1
            self._count("retry", now)
        else:
            entry.obstacle = obstacle
        self.key_order.hold(entry, now + delay_s)

    def require_live(self, entry: Entry, now: float) -> None:
        """Raise AlreadySettled or StaleDelivery, which is counted, if it cannot be settled."""
        if entry.state is SETTLED:
            raise AlreadySettled(f"message {entry.message.id!r} was settled before")
        if entry.locked_until is not None:
            self._expire_if_over(entry, now)
        if entry.state is not STALE:
            return
        self.in_hand.returned(entry)
        self.stats.stale += 1
        raise StaleDelivery(
            f"message {entry.message.id!r} can no longer be settled: its connection, "
            "assignment or lease is gone",
            hint="it will be delivered again; make the handler idempotent on the message id",
        )

    def _expire_if_over(self, entry: Entry, now: float) -> bool:
        """End an entry whose lock is over: the broker has given it to somebody else."""
        if entry.locked_until is None or now < entry.locked_until:
            return False
        if entry.state is not STALE:
            self.in_hand.abandon((entry,))
            self._settlements.end(entry, STALE)
            self.key_order.settled(entry)
        return True

    def _count(self, outcome: str, now: float) -> None:
        self.moved_at = now
        self.stats.settled[outcome] += 1

    # ── reports ──

    def take(self, now: float) -> Report:
        """The report that the driver must get now."""
        self.settle_acked()
        if self._news:
            self.moved_at = now
        returned = set(self._settlements.return_overdue(now))
        if returned:
            self.key_order.discard(returned.__contains__)
        self._news = 0
        self._is_reporting = True
        ends_turn = self.isolation.ends_turn()
        if not ends_turn and not self.closed:
            self._settlements.release_withheld(self.isolation)
        return self._settlements.take()._replace(ends_turn=ends_turn)

    def reported(self, report: Report, *, failures: int = 0, noted: bool = False) -> None:
        """``report`` was made: ``failures`` came too late; its notes are stored if ``noted``."""
        self.stats.stale += failures
        self._is_reporting = False
        if report.ends_turn:
            self.isolation.has_turn = False
        self.key_order.extend(self._settlements.notes_stored(report.notes if noted else 0))

    def leave(self) -> None:
        """The next report says that this consumer leaves in an orderly way."""
        self._settlements.leave()
