"""One group of a queue: who may have which message next. The channel's lock guards all of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from gearshift.message import Message

__all__ = ["Entry", "Group", "Hand", "Lease", "Shared"]


class Shared:
    """A stored message; ``pending`` counts the groups that have not settled it."""

    __slots__ = ("at", "message", "number", "pending")

    def __init__(self, message: Message, number: int, at: float, pending: int) -> None:
        self.message = message
        self.number = number
        self.at = at
        self.pending = pending


class Entry:
    """One message for one group. ``handed`` counts hand-outs, ``attempt`` those worked on."""

    __slots__ = ("attempt", "due", "handed", "holder", "shared")

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.attempt = 0
        self.handed = 0
        self.due = 0.0
        self.holder: Hand | None = None


class Hand:
    """The messages that one consumer holds."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: dict[int, Entry] = {}


class Lease(NamedTuple):
    """A delivery's token: valid while the same handing-out of the entry is the latest one."""

    entry: Entry
    handed: int


class Group:
    """The unsettled messages of one group, oldest first, and the consumers that hold some.

    Messages of one key stay in order with any number of consumers: one is handed out only if every
    earlier unsettled message of its key is in the hands of the same consumer, and no later one is
    in anybody else's. Messages without a key are free.

    A claim looks through all messages from the oldest one on until it has enough. So it is quick
    unless many wait for a retry, or for another consumer of their key.
    """

    def __init__(self) -> None:
        self.entries: OrderedDict[int, Entry] = OrderedDict()  # a dict is slow to begin if emptied
        self.hands: list[Hand] = []

    def add(self, shared: Shared) -> None:
        """A new message, with the highest number so far."""
        self.entries[shared.number] = Entry(shared)

    def claim(self, hand: Hand, limit: int, now: float) -> tuple[list[Entry], float | None]:
        """Hand out up to ``limit`` messages; if none, also when the next one is due."""
        taken: list[Entry] = []
        next_due: float | None = None
        others = [
            entry for other in self.hands if other is not hand for entry in other.held.values()
        ]
        blocked = {entry.shared.message.key for entry in others} - {None}
        for entry in self.entries.values():
            key = entry.shared.message.key
            if entry.holder is not None or key in blocked:
                continue
            if entry.due > now:
                next_due = entry.due if next_due is None else min(next_due, entry.due)
                if key is not None:
                    blocked.add(key)
                continue
            taken.append(entry)
            if len(taken) == limit:
                break
        for entry in taken:
            entry.holder = hand
            entry.attempt += 1
            entry.handed += 1
            hand.held[entry.shared.number] = entry
        return taken, next_due

    def holds(self, hand: Hand, lease: Lease) -> bool:
        """True if ``lease`` is still ``hand``'s."""
        return lease.entry.holder is hand and lease.entry.handed == lease.handed

    def finish(self, entry: Entry) -> Shared:
        """Settled: gone for this group."""
        self.give_back(entry)
        del self.entries[entry.shared.number]
        return entry.shared

    def give_back(self, entry: Entry, due: float = 0.0) -> None:
        """Waits again, until ``due``."""
        assert entry.holder is not None
        del entry.holder.held[entry.shared.number]
        entry.holder = None
        entry.due = due

    def leave(self, hand: Hand) -> None:
        """Give back all that ``hand`` holds, uncounted."""
        for entry in list(hand.held.values()):
            entry.attempt -= 1
            self.give_back(entry)
        self.hands.remove(hand)

    def purge(self) -> list[Shared]:
        """Drop everything that nobody holds."""
        waiting = [entry.shared for entry in self.entries.values() if entry.holder is None]
        for shared in waiting:
            del self.entries[shared.number]
        return waiting
