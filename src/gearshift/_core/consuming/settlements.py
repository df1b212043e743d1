"""Who has been settled and what the broker must be told: once, for every backend.

An *entry* is a received message with its fate. ``QueueSettlements`` turns settled entries into
single or cumulative settlements; ``LogSettlements`` into the contiguous settled prefix of each
partition, so that a position never passes an unsettled message. Neither locks: the inbox does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from gearshift._core.consuming.suspects import Mark
from gearshift.driver import (
    LogDriver,
    Place,
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
    Unstored,
)
from gearshift.errors import GearshiftError
from gearshift.message import Message, Position

__all__ = ["Entry", "Fate", "LogSettlements", "QueueSettlements", "Settlements"]


#: How long the broker may take to store notes before the driver's connection is served again.
_STORE_NOTES_S = 2.0


class Fate(Enum):
    """Where an entry is between its arrival and its end."""

    BUFFERED = auto()  # received, not handed out
    IN_HAND = auto()  # with the user, or on its way to the dead letters
    HELD = auto()  # waits for its retry
    SETTLED = auto()
    STALE = auto()  # the broker will give it to somebody again


_ENDED = (Fate.SETTLED, Fate.STALE)


@dataclass(slots=True, eq=False)
class Entry:
    """One received message. ``retries`` counts how often it was handed out again from here.

    ``obstacle`` is why it is still here, although its retry or dead letter was to be stored
    elsewhere. A rejected one whose dead letter could not be stored is ``dead``, which is the
    reason of its rejection: it is not handled again, its dead letter is.
    """

    message: Message
    token: Any
    position: Position | None
    attempt: int | None
    redelivered: bool | None
    locked_until: float | None = None
    lost: int = 0
    unstored: Unstored | None = None
    return_at: float | None = None
    fate: Fate = Fate.BUFFERED
    retries: int = 0
    obstacle: GearshiftError | None = None
    dead: str | None = None
    burials: int = 0  # dead letters that could not be stored
    request: SettleRequest | None = None
    told: bool = False
    refused: bool = False

    @staticmethod
    def of(incoming: Received) -> Entry:
        return Entry(*incoming)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.message.body or b"")

    @property
    def has_ended(self) -> bool:
        """True once nobody can settle it any more."""
        return self.fate in _ENDED

    @property
    def attempts(self) -> int:
        """Attempts that are known of, this one included, from 1."""
        return (self.attempt or 1) + self.retries


class Settlements(Protocol):
    """What inbox and loop need of either kind.

    ``unsettled_bytes`` are those of their bodies. ``span`` counts what a crash would bring back: on
    a log also what is settled behind an unsettled message.
    """

    unsettled: int
    unsettled_bytes: int

    @property
    def span(self) -> int: ...

    def add(self, entry: Entry) -> None: ...

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float) -> None: ...

    def has_news(self) -> bool: ...

    def entries(self) -> Iterator[Entry]:
        """Those that are not settled."""

    def take(self) -> Any:
        """What to tell the broker now; from here on it counts as told."""

    def tell(self, driver: Any, work: Any) -> Sequence[SettleFailure]:
        """Tell the driver what ``take`` gave. On the loop's thread, without the inbox's lock."""

    def abandon(self) -> None:
        """The connection is gone: every unsettled entry becomes stale."""


#: So many ended entries, with their messages, are kept behind an unsettled one.
_MOST_ENDED = 64


@dataclass(slots=True)
class QueueSettlements:
    """Each message settled for itself; runs of acks told as one where the driver allows it."""

    cumulative: bool
    unsettled: int = 0
    unsettled_bytes: int = 0
    _open: deque[Entry] = field(default_factory=deque)  # in the order received
    _news: list[Entry] = field(default_factory=list)

    @property
    def span(self) -> int:
        return self.unsettled

    def add(self, entry: Entry) -> None:
        self._open.append(entry)
        self.unsettled += 1
        self.unsettled_bytes += entry.size

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float) -> None:
        if settlement is Settlement.RETRY:
            entry.request = SettleRequest(
                entry.token, settlement, delay_s, message=entry.message, attempt=entry.attempts
            )
        else:
            entry.request = SettleRequest(entry.token, settlement, refused=entry.refused)
        self._end(entry, Fate.SETTLED)
        self._news.append(entry)

    def has_news(self) -> bool:
        return bool(self._news)

    def entries(self) -> Iterator[Entry]:
        return (entry for entry in self._open if entry.fate not in _ENDED)

    def expire(self, entry: Entry) -> None:
        """Its lock is over: nothing is told to the broker, which has given it to somebody else."""
        self._end(entry, Fate.STALE)

    def _end(self, entry: Entry, fate: Fate) -> None:
        entry.fate = fate
        self.unsettled -= 1
        self.unsettled_bytes -= entry.size

    def take(self) -> list[SettleRequest]:
        news, self._news = self._news, []
        through = self._settled_prefix()
        singles = [self._told(entry) for entry in news if not entry.told]
        if len(self._open) > 2 * self.unsettled + _MOST_ENDED:
            self._open = deque(self.entries())  # the others were told
        return singles if through is None else [*singles, through]

    def tell(self, driver: QueueDriver, work: list[SettleRequest]) -> Sequence[SettleFailure]:
        return driver.settle(work) if work else ()

    def abandon(self) -> None:
        for entry in self.entries():
            entry.fate = Fate.STALE
        self._open.clear()
        self._news.clear()
        self.unsettled = 0
        self.unsettled_bytes = 0

    def _settled_prefix(self) -> SettleRequest | None:
        """Drop the settled front; where allowed its acks become one, the result."""
        run: list[Entry] = []
        while self._open and self._open[0].fate in _ENDED:
            entry = self._open.popleft()
            is_ack = entry.request is not None and entry.request.settlement is Settlement.ACK
            if is_ack and not entry.told:
                run.append(entry)
        if not self.cumulative or len(run) < 2:
            return None
        for entry in run:
            entry.told = True
        return SettleRequest(run[-1].token, Settlement.ACK, through=True)

    @staticmethod
    def _told(entry: Entry) -> SettleRequest:
        assert entry.request is not None
        entry.told = True
        return entry.request


@dataclass(slots=True)
class _Partition:
    entries: deque[Entry] = field(default_factory=deque)  # from the first unsettled on
    position: int | None = None  # next offset to commit, once known
    mark: Mark | None = None  # where the driver stores notes

    def place(self) -> Place | None:
        if self.position is None:
            return None
        return Place(self.position, self.mark.note(self.position) if self.mark else "")


@dataclass(slots=True)
class LogSettlements:
    """The settled prefix of each partition that this consumer owns, and what is suspected there.

    ``noted`` is false while the broker may not have a note without which a death would not be
    noticed: until then nothing more may be handed out.
    """

    unsettled: int = 0
    unsettled_bytes: int = 0
    span: int = 0
    _partitions: dict[int, _Partition] = field(default_factory=dict)
    _news: set[int] = field(default_factory=set)
    _notes: int = 0  # how many notes there were that must be stored
    _taken_notes: int = 0  # of these, those that ``take`` gave
    _stored_notes: int = 0

    @property
    def noted(self) -> bool:
        return self._stored_notes == self._notes

    def assign(self, marks: Mapping[int, Mark]) -> None:
        """Stand in these partitions, and have that noted."""
        for number, mark in marks.items():
            self._partitions[number] = _Partition(position=mark.position, mark=mark)
            self._renew_note(number)

    def leave(self, numbers: Iterable[int] | None = None) -> None:
        """Note with the next positions that nobody stands in these partitions; None: in any."""
        for number in list(self._partitions) if numbers is None else numbers:
            partition = self._partitions.get(number)
            if partition is not None and partition.mark is not None:
                partition.mark.leave()
                self._news.add(number)

    def hold(self, entry: Entry) -> None:
        """Note that a suspect is about to be handed out."""
        assert entry.position is not None
        partition = self._partitions[entry.position.partition]
        if partition.mark is not None and partition.position is not None:
            partition.mark.hold(entry.position.offset, partition.position)
            self._renew_note(entry.position.partition)

    def _renew_note(self, number: int) -> None:
        self._news.add(number)
        self._notes += 1

    def add(self, entry: Entry) -> None:
        """Take on an arrival; ``entry.lost`` is then what is known of it."""
        assert entry.position is not None
        partition = self._partitions.get(entry.position.partition)
        if partition is None:
            partition = self._partitions[entry.position.partition] = _Partition()
        if partition.mark is not None:
            entry.lost = partition.mark.losses(entry.position.offset)
            entry.attempt = entry.lost + 1 if entry.lost > 1 else None
        partition.entries.append(entry)
        self.unsettled += 1
        self.unsettled_bytes += entry.size
        self.span += 1

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float) -> None:
        """A log knows only "done with it". RELEASE changes nothing, it comes again anyway."""
        if settlement is Settlement.RELEASE:
            return
        assert entry.position is not None
        number = entry.position.partition
        partition = self._partitions[number]
        self._end(entry, Fate.SETTLED)
        while partition.entries and partition.entries[0].fate is Fate.SETTLED:
            done = partition.entries.popleft()
            self.span -= 1
            assert done.position is not None
            partition.position = done.position.offset + 1
            self._news.add(number)

    def has_news(self) -> bool:
        return bool(self._news)

    def entries(self) -> Iterator[Entry]:
        for partition in self._partitions.values():
            yield from (entry for entry in partition.entries if entry.fate is not Fate.SETTLED)

    def take(self) -> dict[int, Place]:
        news, self._news = self._news, set()
        self._taken_notes = self._notes
        return self.positions(news)

    def tell(self, driver: LogDriver, work: Mapping[int, Place]) -> Sequence[SettleFailure]:
        taken = self._taken_notes  # while it is flushed, others may come
        if work:
            driver.commit(work)
        if self._stored_notes < taken and driver.flush(_STORE_NOTES_S):
            self._stored_notes = taken
        return ()

    def positions(self, numbers: Iterable[int]) -> dict[int, Place]:
        """Next offset of each of these partitions, where it is known."""
        return {
            number: place
            for number in numbers
            if (partition := self._partitions.get(number))
            and (place := partition.place()) is not None
        }

    def in_hand(self, numbers: Iterable[int]) -> bool:
        """True if the user still works on a message of one of these partitions."""
        return any(
            entry.fate is Fate.IN_HAND
            for number in numbers
            if number in self._partitions
            for entry in self._partitions[number].entries
        )

    def revoke(self, numbers: Iterable[int]) -> None:
        """These partitions are not ours any more: their unsettled entries become stale."""
        for number in numbers:
            partition = self._partitions.pop(number, None)
            self._news.discard(number)
            for entry in partition.entries if partition else ():
                self.span -= 1
                if entry.fate is not Fate.SETTLED:
                    self._end(entry, Fate.STALE)

    def abandon(self) -> None:
        """Forget every entry; where it stands it goes on standing."""
        for number, partition in list(self._partitions.items()):
            self.revoke([number])
            partition.entries.clear()
            self._partitions[number] = partition

    def _end(self, entry: Entry, fate: Fate) -> None:
        entry.fate = fate
        self.unsettled -= 1
        self.unsettled_bytes -= entry.size
