"""The delivery window as users' threads use it: they wait for messages and settle them."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from gearshift._core.consuming.entry import IN_HAND, Entry
from gearshift._core.consuming.gathering import Gathering
from gearshift._core.consuming.shared_window import SharedWindow
from gearshift._core.consuming.suspects import INSIST_S
from gearshift.driver import Settlement
from gearshift.errors import Closed, GearshiftError
from gearshift.stats import ReceiveStats, Timings

__all__ = ["UserSide"]

log = logging.getLogger("gearshift.consumer")

#: A user who gets nothing, because nothing is settled, is warned after that time, and again.
_WARN_STALLED_AFTER_S = 10.0
_WARN_AGAIN_AFTER_S = 60.0


class UserSide:
    """Takes messages out of the window and settles them. Any thread.

    ``_warn_at`` is guarded by the lock of the ``SharedWindow``, which guards all other state.
    """

    def __init__(self, shared: SharedWindow) -> None:
        self._shared = shared
        self.window = shared.window
        self.changed = shared.changed
        self.clock = shared.clock
        self._warn_at = 0.0  # not before
        self.handler_limit = 0  # set by a worker before its handlers begin

    def next(
        self, max_messages: int, timeout_s: float | None, user: int | Gathering | None = None
    ) -> list[Entry]:
        """Up to ``max_messages`` entries as soon as there is one; empty after ``timeout_s``.

        They are for ``user``, or this thread. Raises Closed, and what ended the loop.
        """
        user = threading.get_ident() if user is None else user
        if entries := self.first(max_messages, user):
            return entries
        shared = self._shared
        deadline = None if timeout_s is None else shared.clock() + timeout_s
        with shared.changed:
            while not entries:
                entries, nap_s = self.look(max_messages, user, deadline)
                if entries or nap_s is None:
                    break
                self.window.isolation.asking += 1
                shared.changed.wait(nap_s)
                self.window.isolation.asking -= 1
        return entries

    def first(self, max_messages: int, user: int | Gathering) -> list[Entry]:
        """Entries that may go at once to ``user``: a thread's or task's number, or a batch.

        Else the driver is woken, if it fetches the next message only for somebody who asks.
        """
        shared = self._shared
        with shared.lock:
            entries = self.window.pop(max_messages, user, shared.clock())
            wake = shared.wake if not entries and self.window.ask() else None
        if wake is not None:
            wake()
        return entries

    def look(
        self, max_messages: int, user: int | Gathering, deadline: float | None
    ) -> tuple[list[Entry], float | None]:
        """Entries, or for how many seconds to wait for a change; None at the deadline.

        With the lock held. Raises as ``next``.
        """
        shared, window, now = self._shared, self.window, self._shared.clock()
        entries = window.pop(max_messages, user, now)
        if entries:
            return entries, None
        if window.closed:
            raise Closed("this consumer is closed")
        if shared.error is not None:
            raise shared.error
        self._warn_if_stalled(now)
        insists = window.insist(user, now)
        if deadline is not None and now >= deadline:
            return [], None
        return [], self._nap_s(now, deadline, insists)

    def ack(self, entry: Entry) -> None:
        """Record that ``entry`` was handled. Raises StaleDelivery if that cannot matter any more.

        No lock is taken unless somebody waits for this one: see ``DeliveryWindow.acked``.
        """
        window, locked_until = self.window, entry.locked_until
        if entry.state is not IN_HAND or (
            locked_until is not None and locked_until <= self.clock()
        ):
            self.settle(entry, Settlement.ACK)
            return
        window.acked.append(entry)
        # Only now: whoever begins to wait meanwhile looks at ``acked`` after saying so.
        if self._shared.draining or window.is_watched:
            self._settle_acked()
        elif len(window.acked) >= window.many_acked and not window.is_woken:
            window.is_woken = True
            self._shared.wake()

    def _settle_acked(self) -> None:
        shared = self._shared
        with shared.lock:
            urgent, freed = self.window.settle_acked()
            if freed or shared.draining:
                shared.changed.notify_all()
            wake = shared.wake
        if urgent:
            wake()

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float = 0.0) -> None:
        """Record how ``entry`` ended. Raises StaleDelivery if that cannot matter any more."""
        shared = self._shared
        with shared.lock:
            urgent, freed = self.window.settle(entry, settlement, delay_s, shared.clock())
            if freed or shared.draining:
                shared.changed.notify_all()
            wake = shared.wake
        if urgent:
            wake()

    def hold(self, entry: Entry, delay_s: float, obstacle: GearshiftError | None = None) -> None:
        """See DeliveryWindow.hold."""
        with self._shared.changed:
            self.window.hold(entry, delay_s, self._shared.clock(), obstacle)
            self._shared.changed.notify_all()

    def is_stalled(self) -> bool:
        """True if every delivery that the window allows is with users: no more will come."""
        with self._shared.lock:
            return self.window.is_stalled

    def require_live(self, entry: Entry) -> None:
        """See DeliveryWindow.require_live."""
        with self._shared.lock:
            self.window.require_live(entry, self._shared.clock())

    def record_handled(self, outcome: str, seconds: float) -> None:
        """A handler has worked on an entry for so long."""
        with self._shared.lock:
            self.window.stats.handled.setdefault(outcome, Timings()).add(seconds)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until connected, assigned and positioned; False after the timeout."""
        shared = self._shared
        with shared.changed:
            shared.changed.wait_for(
                lambda: shared.ready or shared.error or self.window.closed, timeout_s
            )
            if shared.error is not None:
                raise shared.error
            return shared.ready

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until the driver knows of every settlement; False after the timeout."""
        self._shared.wake()
        with self._shared.changed:
            return self._shared.changed.wait_for(lambda: not self.window.has_news, timeout_s)

    def in_hand(self) -> list[Entry]:
        """Entries that the user has and has not settled."""
        with self._shared.lock:
            return [entry for entry in self.window.entries() if entry.state is IN_HAND]

    @property
    def unsettled(self) -> int:
        """Messages received and not settled, handed out or not."""
        with self._shared.lock:
            return self.window.unsettled

    @property
    def drained(self) -> bool | None:
        """See the driver's ``drained``; False without a connection."""
        return self._shared.drained

    def snapshot(self) -> ReceiveStats:
        """Counters of what was received and settled, and the present state."""
        shared, window = self._shared, self.window
        with shared.lock:
            now = shared.clock()
            window.settle_acked()
            blank = ReceiveStats(channel=window.stats.channel, group=window.stats.group)
            found = replace(blank + window.stats, unsettled=window.unsettled)
            entries = window.entries()
            in_hand = window.in_hand.among(entries)
            found.in_hand = len(in_hand)
            found.longest_s = max((now - entry.given_at for entry in in_hand), default=0.0)
            if not window.closed:
                found.handler_limit = self.handler_limit
                found.consumers = 1
                found.silent_s = max(0.0, now - shared.heard_at)
                found.disconnected = None if shared.cut_off is None else str(shared.cut_off)
                is_full = self.handler_limit and len(in_hand) >= self.handler_limit
                found.stalled_s = now - window.moved_at if is_full or window.is_stalled else 0.0
                found.error = None if shared.error is None else str(shared.error)
                obstacles = [e.obstacle for e in entries if e.obstacle is not None]
                found.unstored = len(obstacles)
                found.obstacle = str(obstacles[0]) if obstacles else None
            return found

    def close(self) -> None:
        """No more hand-outs; waiting users get Closed."""
        with self._shared.changed:
            self.window.closed = True
            self._shared.changed.notify_all()

    # ── inside, with the lock held ──

    def _warn_if_stalled(self, now: float) -> None:
        """Somebody waits for a delivery, and forgotten settlements are why there is none."""
        window = self.window
        idle_s = now - window.moved_at
        if idle_s < _WARN_STALLED_AFTER_S or now < self._warn_at or not window.is_stalled:
            return
        self._warn_at = now + _WARN_AGAIN_AFTER_S
        log.warning(
            "channel %r, group %r: no delivery, because %d are unsettled and none was settled for "
            "%.0f s: settle them with ack(), retry() or reject()",
            window.stats.channel, window.stats.group, window.unsettled, idle_s,
        )  # fmt: skip

    def _nap_s(self, now: float, deadline: float | None, insists: bool) -> float:
        """Seconds to wait for a change before looking again."""
        moments = (self.window.next_due(now), deadline)
        naps = [moment - now for moment in moments if moment is not None]
        return max(0.0, min([*naps, INSIST_S if insists else _WARN_STALLED_AFTER_S]))
