"""Order by key among the messages that wait to be handed out.

A log takes no message back, so on a stream a retried message is held here and handed out again
after its delay. Until it is settled, later messages of its key wait; other keys go on. With
``serial_keys`` a key's messages are always handed out one at a time, or several to one batch, which
keeps them in order when many threads handle one consumer's messages.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gearshift._core.consuming.entry import Entry, EntryState
from gearshift._core.consuming.gathering import Gathering
from gearshift.message import Key

__all__ = ["KeyOrder"]


@dataclass(slots=True)
class _BusyKey:
    holders: list[Entry] = field(default_factory=list)  # entries that the others wait for
    batch: Gathering | None = None  # of the holders, which others may join
    followers: deque[Entry] = field(default_factory=deque)
    overdue: list[Entry] = field(default_factory=list)  # holders that wait for an earlier one


class KeyOrder:
    """Entries to hand out, in order of arrival but for keys that wait. Does not lock."""

    def __init__(self, *, serial_keys: bool = False) -> None:
        self._serial_keys = serial_keys
        self._tie_breaker = itertools.count()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._ready: deque[Entry] = deque()
        self._due: list[tuple[float, int, Entry]] = []
        self.busy: dict[Key, _BusyKey] = {}  # keys whose messages wait for others

    def __bool__(self) -> bool:
        """True if something waits here to be handed out."""
        if self._ready or self._due:
            return True
        return any(busy.followers or busy.overdue for busy in self.busy.values())

    def extend(self, arrivals: Iterable[Entry]) -> None:
        """Add new arrivals."""
        self._ready.extend(arrivals)

    def take(self, most: int, now: float) -> list[Entry]:
        """Up to ``most`` entries to hand out, as ``pop`` gives them."""
        if not (self._due or self.busy or self._serial_keys):
            next_ready = self._ready.popleft
            return [next_ready() for _ in range(min(most, len(self._ready)))]
        found: list[Entry] = []
        while len(found) < most and (entry := self.pop(now)) is not None:
            found.append(entry)
        return found

    def pop(self, now: float, batch: Gathering | None = None) -> Entry | None:
        """The next entry to hand out, retried ones first when their time has come; None if none.

        It is for ``batch``, whose messages may be of one key.
        """
        while self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)[2]
            if self._is_first(entry):
                return entry
        while self._ready:
            entry = self._ready.popleft()
            if self._may_go(entry, batch):
                return entry
        return None

    def put_back(self, entry: Entry) -> None:
        """``entry`` was popped and is not handed out yet."""
        if entry.state is EntryState.HELD:
            self._make_due(entry)
            return
        self._ready.appendleft(entry)
        busy = None if entry.message.key is None else self.busy.get(entry.message.key)
        if busy is not None and busy.holders == [entry]:
            busy.batch = None  # it keeps its key, of which the batch that it did not join has none
        elif busy is not None:
            busy.holders.remove(entry)

    def hold(self, entry: Entry, due: float) -> None:
        """Keep a failed entry until ``due``, and its key with it."""
        entry.state = EntryState.HELD
        heapq.heappush(self._due, (due, next(self._tie_breaker), entry))
        if entry.message.key is not None:
            busy = self.busy.setdefault(entry.message.key, _BusyKey())
            if entry not in busy.holders:
                busy.holders.append(entry)

    def settled(self, entry: Entry) -> bool:
        """``entry`` has ended: if its key waited for it, the key goes on, in order.

        True if others may go now.
        """
        if not self.busy or (key := entry.message.key) is None:
            return False
        busy = self.busy.get(key)
        if busy is None or entry not in busy.holders:
            return False
        busy.holders.remove(entry)
        if busy.holders:
            return self._release_overdue(busy)
        waited = bool(busy.followers)
        self._advance(key, busy)
        return waited

    def next_due(self) -> float | None:
        """When the next retried entry may be handed out."""
        return self._due[0][0] if self._due else None

    def discard(self, unwanted: Callable[[Entry], bool]) -> None:
        """Forget what ``unwanted`` says, entries in hand that a key waits for included."""
        self._due = [item for item in self._due if not unwanted(item[2])]
        heapq.heapify(self._due)
        self._ready = deque(entry for entry in self._ready if not unwanted(entry))
        for key, busy in list(self.busy.items()):
            busy.holders = [entry for entry in busy.holders if not unwanted(entry)]
            busy.followers = deque(entry for entry in busy.followers if not unwanted(entry))
            busy.overdue = [entry for entry in busy.overdue if not unwanted(entry)]
            if not busy.holders:
                self._advance(key, busy)
            else:
                self._release_overdue(busy)

    def _is_first(self, entry: Entry) -> bool:
        """True if no earlier message of its batch and key is to be handled before; else it waits.

        Without ``serial_keys`` a key may have several holders, which go as they are due.
        """
        busy = None if entry.message.key is None else self.busy.get(entry.message.key)
        if busy is None or not self._serial_keys or busy.holders[0] is entry:
            return True
        busy.overdue.append(entry)
        return False

    def _release_overdue(self, busy: _BusyKey) -> bool:
        """Let the first holder go if it was due before. True if it does."""
        first = busy.holders[0]
        if first not in busy.overdue:
            return False
        busy.overdue.remove(first)
        self._make_due(first)
        return True

    def _make_due(self, entry: Entry) -> None:
        heapq.heappush(self._due, (-math.inf, next(self._tie_breaker), entry))

    def _may_go(self, entry: Entry, batch: Gathering | None) -> bool:
        """True if its key is free or was passed on to it; else it is put into its busy."""
        key = entry.message.key
        if key is None:
            return True
        busy = self.busy.get(key)
        if busy is None:
            if self._serial_keys:
                self.busy[key] = _BusyKey([entry], batch)
            return True
        joins = batch is not None and busy.batch is batch
        if joins and not busy.followers:
            busy.holders.append(entry)
            return True
        if entry in busy.holders:
            busy.batch = batch
            if batch is not None:  # it gets the only holder, so the followers may join
                self._release_followers(busy)
            return True
        busy.followers.append(entry)
        if joins:  # behind those that another batch has had to leave
            self._release_followers(busy)
        return False

    def _release_followers(self, busy: _BusyKey) -> None:
        self._ready.extendleft(reversed(busy.followers))
        busy.followers.clear()

    def _advance(self, key: Key, busy: _BusyKey) -> None:
        """Nobody holds this key any more: let its followers go, one or all of them."""
        if self._serial_keys and busy.followers:
            busy.batch = None
            busy.holders.append(busy.followers.popleft())
            self._ready.appendleft(busy.holders[0])
            return
        del self.busy[key]
        self._release_followers(busy)
