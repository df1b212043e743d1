"""Received messages on their way to the user, with a lane for every key that must wait.

No log gives one message back, so on a stream a retried message stays in the consumer's hand and
is handed out again after its delay. Until it is settled, what came later with the same key waits
in its lane; other keys go on. With ``serial_keys`` a key's messages are handed out one at a time
in any case, which keeps them in order when many threads handle one consumer's messages.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gearshift._core.consuming.settlements import Entry, Fate
from gearshift.message import Key

__all__ = ["KeyOrder"]


@dataclass(slots=True)
class _Lane:
    holders: list[Entry] = field(default_factory=list)  # those the others wait for
    followers: deque[Entry] = field(default_factory=deque)


class KeyOrder:
    """Entries to hand out, in order of arrival but for keys that wait. The inbox locks."""

    def __init__(self, *, serial_keys: bool = False) -> None:
        self._serial_keys = serial_keys
        self._tie_breaker = itertools.count()
        self._clear()

    def _clear(self) -> None:
        self._ready: deque[Entry] = deque()
        self._due: list[tuple[float, int, Entry]] = []
        self._lanes: dict[Key, _Lane] = {}

    def __bool__(self) -> bool:
        """True if something waits here to be handed out."""
        lanes = self._lanes.values()
        return bool(self._ready or self._due or any(lane.followers for lane in lanes))

    def push(self, entry: Entry) -> None:
        """A new arrival."""
        self._ready.append(entry)

    def pop(self, now: float) -> Entry | None:
        """The next entry to hand out, retried ones first when their time has come; None if none."""
        if self._due and self._due[0][0] <= now:
            return heapq.heappop(self._due)[2]
        while self._ready:
            entry = self._ready.popleft()
            if self._may_go(entry):
                return entry
        return None

    def hold(self, entry: Entry, due: float) -> None:
        """Keep a failed entry until ``due``, and its key with it."""
        entry.fate = Fate.HELD
        heapq.heappush(self._due, (due, next(self._tie_breaker), entry))
        if entry.message.key is not None:
            lane = self._lanes.setdefault(entry.message.key, _Lane())
            if entry not in lane.holders:
                lane.holders.append(entry)

    def settled(self, entry: Entry) -> bool:
        """``entry`` has ended: if its key waited for it, the key goes on, in order.

        True if others may go now.
        """
        key = entry.message.key
        if key is None or not self._lanes:
            return False
        lane = self._lanes.get(key)
        if lane is None or entry not in lane.holders:
            return False
        lane.holders.remove(entry)
        if lane.holders:
            return False
        waited = bool(lane.followers)
        self._advance(key, lane)
        return waited

    def next_due(self) -> float | None:
        """When the next retried entry may be handed out."""
        return self._due[0][0] if self._due else None

    def discard(self, unwanted: Callable[[Entry], bool]) -> None:
        """Forget what ``unwanted`` says, entries in hand that a key waits for included."""
        self._due = [item for item in self._due if not unwanted(item[2])]
        heapq.heapify(self._due)
        self._ready = deque(entry for entry in self._ready if not unwanted(entry))
        for key, lane in list(self._lanes.items()):
            lane.holders = [entry for entry in lane.holders if not unwanted(entry)]
            lane.followers = deque(entry for entry in lane.followers if not unwanted(entry))
            if not lane.holders:
                self._advance(key, lane)

    def drain(self) -> list[Entry]:
        """Take everything out that has not been handed out."""
        waiting = [entry for lane in self._lanes.values() for entry in lane.followers]
        entries = [*(item[2] for item in self._due), *waiting, *self._ready]
        self._clear()
        return entries

    def _may_go(self, entry: Entry) -> bool:
        """True if its key is free or was passed on to it; else it is put into its lane."""
        key = entry.message.key
        if key is None:
            return True
        lane = self._lanes.get(key)
        if lane is None:
            if self._serial_keys:
                self._lanes[key] = _Lane([entry])
            return True
        if entry in lane.holders:
            return True
        lane.followers.append(entry)
        return False

    def _advance(self, key: Key, lane: _Lane) -> None:
        """Nobody holds this key any more: let its followers go, one or all of them."""
        if self._serial_keys and lane.followers:
            lane.holders.append(lane.followers.popleft())
            self._ready.appendleft(lane.holders[0])
            return
        del self._lanes[key]
        self._ready.extendleft(reversed(lane.followers))
