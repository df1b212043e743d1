"""Received messages on their way to the user; a retried one waits here while its key waits with it.

No log gives one message back, so on a stream the unsettled message stays in the consumer's hand
and is handed out again after its delay. Until it is settled, what was received later with the same
key is held behind it; other keys go on.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gearshift.ledger import Entry, Fate

__all__ = ["Holding"]


@dataclass(slots=True)
class _HeldKey:
    holders: list[Entry] = field(default_factory=list)  # retried and not settled since
    followers: deque[Entry] = field(default_factory=deque)


class Holding:
    """A queue of entries with held keys. Not thread-safe: the inbox locks."""

    def __init__(self) -> None:
        self._tie_breaker = itertools.count()
        self._clear()

    def _clear(self) -> None:
        self._ready: deque[Entry] = deque()
        self._due: list[tuple[float, int, Entry]] = []
        self._held: dict[str, _HeldKey] = {}

    def push(self, entry: Entry) -> None:
        """A new arrival."""
        self._ready.append(entry)

    def pop(self, now: float) -> Entry | None:
        """The next entry to hand out, retried ones first when their time has come; None if none."""
        if self._due and self._due[0][0] <= now:
            return heapq.heappop(self._due)[2]
        while self._ready:
            entry = self._ready.popleft()
            held = self._held.get(entry.message.key) if self._held and entry.message.key else None
            if held is None:
                return entry
            held.followers.append(entry)
        return None

    def hold(self, entry: Entry, due: float) -> None:
        """Keep a failed entry until ``due``, and its key with it."""
        entry.fate = Fate.HELD
        heapq.heappush(self._due, (due, next(self._tie_breaker), entry))
        if entry.message.key is not None:
            holders = self._held.setdefault(entry.message.key, _HeldKey()).holders
            if entry not in holders:
                holders.append(entry)

    def settled(self, entry: Entry) -> None:
        """``entry`` has ended: if its key waited for it alone, the key goes on, in order."""
        if not self._held or entry.message.key is None:
            return
        held = self._held.get(entry.message.key)
        if held is None or entry not in held.holders:
            return
        held.holders.remove(entry)
        if not held.holders:
            del self._held[entry.message.key]
            self._ready.extendleft(reversed(held.followers))

    def next_due(self) -> float | None:
        """When the next retried entry may be handed out."""
        return self._due[0][0] if self._due else None

    def discard(self, unwanted: Callable[[Entry], bool]) -> None:
        """Forget every entry that ``unwanted`` says, those in hand that hold a key included."""
        self._due = [item for item in self._due if not unwanted(item[2])]
        heapq.heapify(self._due)
        kept = deque(entry for entry in self._ready if not unwanted(entry))
        for key, held in list(self._held.items()):
            held.holders = [entry for entry in held.holders if not unwanted(entry)]
            held.followers = deque(entry for entry in held.followers if not unwanted(entry))
            if not held.holders:
                del self._held[key]
                kept.extendleft(reversed(held.followers))
        self._ready = kept

    def drain(self) -> list[Entry]:
        """Take everything out that has not been handed out."""
        entries = list(self._entries())
        self._clear()
        return entries

    def _entries(self) -> Iterator[Entry]:
        for _, _, entry in self._due:
            yield entry
        for held in self._held.values():
            yield from held.followers
        yield from self._ready

    def __len__(self) -> int:
        return sum(1 for _ in self._entries())
