"""One group of a queue: who may have which message next. The channel's lock guards all of it.

The order rule, which keeps messages of one key in order with any number of consumers: a message
with a key is handed out only if every earlier unsettled message of its key is in the hands of the
same consumer, and no later one is in anybody else's. Messages without a key are free.

Each key with unsettled messages has a *lane*; only the first waiting message of a lane, its head,
can be claimed, by the lane's holder if it has one. A head is *listed* in one of these places, so
that a claim looks at candidates only, never at what is blocked:

- ``fresh``: never handed out, in the order of publishing (all new messages start here);
- ``again``: to be handed out to anybody, lowest number first;
- ``hand.mine``: only the holder of its lane may have it;
- ``delayed``: not before its time.

Moving to another place leaves a stale record behind, which is skipped when it comes up.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from gearshift.message import Key, Message

__all__ = ["Entry", "Group", "Hand", "Lease", "Shared"]


class Shared:
    """A stored message; ``pending`` counts the groups that have not settled it."""

    __slots__ = ("at", "message", "number", "pending")

    def __init__(self, message: Message, number: int, at: float, pending: int) -> None:
        self.message = message
        self.number = number
        self.at = at
        self.pending = pending


class Lane:
    """The unsettled messages of one key: those waiting, by number, and who holds the others."""

    __slots__ = ("held", "holder", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Entry]] = []
        self.holder: Hand | None = None
        self.held = 0


class Entry:
    """One message for one group. ``listed`` is the place where it stands as a candidate."""

    __slots__ = ("attempt", "due", "handed", "holder", "lane", "listed", "number", "shared")

    def __init__(self, shared: Shared, lane: Lane | None) -> None:
        self.shared = shared
        self.number = shared.number
        self.lane = lane
        self.attempt = 0
        self.handed = 0
        self.due = 0.0
        self.holder: Hand | None = None
        self.listed: object = None


class Hand:
    """The messages that one consumer holds, and the heads that wait for it alone."""

    __slots__ = ("held", "mine")

    def __init__(self) -> None:
        self.held: dict[int, Entry] = {}
        self.mine: _Heap = []


class Lease(NamedTuple):
    """A delivery's token: valid while the same handing-out of the entry is the latest one."""

    entry: Entry
    handed: int


_Heap: TypeAlias = list[tuple[int, Entry]]


class Group:
    """The unsettled messages of one group, and the consumers that hold some of them."""

    def __init__(self) -> None:
        self.entries: OrderedDict[int, Entry] = OrderedDict()  # a dict is slow to begin if emptied
        self.hands: list[Hand] = []
        self.lanes: dict[Key, Lane] = {}
        self.fresh: deque[tuple[int, Entry]] = deque()
        self.again: _Heap = []
        self.delayed: list[tuple[float, int, Entry]] = []

    # ── in ──

    def add(self, shared: Shared) -> None:
        """A new message, with the highest number so far."""
        key = shared.message.key
        number = shared.number
        if key is None:
            entry = Entry(shared, None)
        else:
            lane = self.lanes.get(key)
            if lane is None:
                lane = self.lanes[key] = Lane()
            entry = Entry(shared, lane)
            heapq.heappush(lane.waiting, (number, entry))
        self.entries[number] = entry
        entry.listed = self.fresh
        self.fresh.append((number, entry))

    # ── out ──

    def claim(self, hand: Hand, limit: int, now: float) -> tuple[list[Entry], float | None]:
        """Hand out up to ``limit`` messages, lowest numbers first; also when one is due next."""
        self._wake_delayed(now)
        taken: list[Entry] = []
        for entry in self._candidates(hand):
            if self._give(entry, hand, now):
                taken.append(entry)
                if len(taken) == limit:
                    break
        return taken, self.delayed[0][0] if self.delayed else None

    def _candidates(self, hand: Hand) -> Iterator[Entry]:
        fresh, again, mine = self.fresh, self.again, hand.mine
        while fresh or again or mine:
            place: deque[tuple[int, Entry]] | _Heap = fresh
            if again and (not place or again[0][0] < place[0][0]):
                place = again
            if mine and (not place or mine[0][0] < place[0][0]):
                place = mine
            entry = (fresh.popleft() if place is fresh else heapq.heappop(place))[1]  # type: ignore[arg-type]
            if entry.listed is place:
                entry.listed = None
                yield entry

    def _give(self, entry: Entry, hand: Hand, now: float) -> bool:
        lane = entry.lane
        if lane is not None:
            if lane.waiting[0][1] is not entry:
                return False  # blocked; listed again once it is the head
            if lane.holder is not None and lane.holder is not hand:
                self._list(entry, lane.holder.mine)
                return False
            heapq.heappop(lane.waiting)
            lane.holder = hand
            lane.held += 1
            self._list_head(lane, now)
        entry.holder = hand
        entry.attempt += 1
        entry.handed += 1
        hand.held[entry.number] = entry
        return True

    # ── back ──

    def holds(self, hand: Hand, lease: Lease) -> bool:
        """True if ``lease`` is still ``hand``'s."""
        entry, handed = lease
        return entry.holder is hand and entry.handed == handed

    def finish(self, entry: Entry, now: float) -> Shared:
        """Settled: gone for this group."""
        del self.entries[entry.number]
        self._drop(entry, now)
        return entry.shared

    def give_back(self, entry: Entry, due: float, now: float) -> None:
        """Waits again, until ``due``."""
        entry.due = due
        lane = entry.lane
        if lane is not None:
            heapq.heappush(lane.waiting, (entry.number, entry))
            self._drop(entry, now)
            return
        self._drop(entry, now)
        self._list_by_time(entry, self.again, now)

    def _drop(self, entry: Entry, now: float) -> None:
        assert entry.holder is not None
        del entry.holder.held[entry.number]
        entry.holder = None
        lane = entry.lane
        if lane is None:
            return
        lane.held -= 1
        if not lane.held:
            lane.holder = None
        if lane.waiting:
            self._list_head(lane, now)
        elif not lane.held and (key := entry.shared.message.key) is not None:
            del self.lanes[key]

    def leave(self, hand: Hand, now: float) -> None:
        """Give back all that ``hand`` holds, uncounted."""
        for entry in sorted(hand.held.values(), key=lambda entry: entry.number):
            entry.attempt -= 1
            self.give_back(entry, 0.0, now)
        self.hands.remove(hand)

    def purge(self) -> list[Shared]:
        """Drop everything that nobody holds."""
        waiting = [entry for entry in self.entries.values() if entry.holder is None]
        for entry in waiting:
            del self.entries[entry.number]
            entry.listed = None
        for key, lane in list(self.lanes.items()):
            lane.waiting.clear()
            if not lane.held:
                del self.lanes[key]
        self.fresh.clear()
        self.again.clear()
        self.delayed.clear()
        return [entry.shared for entry in waiting]

    # ── listing ──

    def _list_head(self, lane: Lane, now: float) -> None:
        if lane.waiting:
            head = lane.waiting[0][1]
            self._list_by_time(head, lane.holder.mine if lane.holder else self.again, now)

    def _list_by_time(self, entry: Entry, place: _Heap, now: float) -> None:
        if entry.due <= now:
            self._list(entry, place)
        elif entry.listed is not self.delayed:
            entry.listed = self.delayed
            heapq.heappush(self.delayed, (entry.due, entry.number, entry))

    def _list(self, entry: Entry, place: _Heap) -> None:
        if entry.listed is self.fresh or entry.listed is place:
            return  # anybody finds it in fresh, its lane's holder too
        entry.listed = place
        heapq.heappush(place, (entry.number, entry))

    def _wake_delayed(self, now: float) -> None:
        while self.delayed and self.delayed[0][0] <= now:
            entry = heapq.heappop(self.delayed)[2]
            if entry.listed is not self.delayed or entry.due > now:
                continue
            entry.listed = None
            if entry.lane is None:
                self._list(entry, self.again)
            elif entry.lane.waiting[0][1] is entry:
                self._list_head(entry.lane, now)
