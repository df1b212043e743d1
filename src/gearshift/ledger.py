"""Who has been settled and what the broker must be told: once, for every backend.

An *entry* is a received message with its fate. ``QueueLedger`` turns settled entries into single
or cumulative settlements; ``LogLedger`` into the contiguous settled prefix of each partition, so
that a position never passes an unsettled message. Neither locks: the inbox does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from gearshift.driver import Incoming, LogDriver, QueueDriver, SettleFailure, Settlement, Verdict
from gearshift.message import Message, Position

__all__ = ["Entry", "Fate", "Ledger", "LogLedger", "QueueLedger"]


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
    """One received message. ``retries`` counts how often it was handed out again from here."""

    message: Message
    token: Any
    position: Position | None
    attempt: int | None
    redelivered: bool | None
    locked_until: float | None = None
    fate: Fate = Fate.BUFFERED
    retries: int = 0
    settlement: Settlement | None = None
    told: bool = False

    @staticmethod
    def of(incoming: Incoming) -> Entry:
        return Entry(*incoming)

    @property
    def attempts(self) -> int:
        """Attempts that are known of, this one included, from 1."""
        return (self.attempt or 1) + self.retries


class Ledger(Protocol):
    """What inbox and pump need of either kind.

    ``span`` counts what a crash would bring back: on a log also what is settled behind an
    unsettled message.
    """

    unsettled: int

    @property
    def span(self) -> int: ...

    def add(self, entry: Entry) -> None: ...

    def settle(self, entry: Entry, verdict: Verdict, delay_s: float) -> None: ...

    def has_news(self) -> bool: ...

    def entries(self) -> Iterator[Entry]:
        """Those that are not settled."""

    def take(self) -> Any:
        """What to tell the broker now; from here on it counts as told."""

    def tell(self, driver: Any, work: Any) -> Sequence[SettleFailure]:
        """Tell the driver what ``take`` gave. On the pump's thread, without the inbox's lock."""

    def abandon(self) -> None:
        """The connection is gone: every unsettled entry becomes stale."""


@dataclass(slots=True)
class QueueLedger:
    """Each message settled for itself; runs of acks told as one where the driver allows it."""

    cumulative: bool
    unsettled: int = 0
    _open: deque[Entry] = field(default_factory=deque)  # in the order received
    _news: list[Entry] = field(default_factory=list)

    @property
    def span(self) -> int:
        return self.unsettled

    def add(self, entry: Entry) -> None:
        self._open.append(entry)
        self.unsettled += 1

    def settle(self, entry: Entry, verdict: Verdict, delay_s: float) -> None:
        if verdict is Verdict.RETRY:
            entry.settlement = Settlement(
                entry.token, verdict, delay_s, message=entry.message, attempt=entry.attempts
            )
        else:
            entry.settlement = Settlement(entry.token, verdict)
        entry.fate = Fate.SETTLED
        self.unsettled -= 1
        self._news.append(entry)

    def has_news(self) -> bool:
        return bool(self._news)

    def entries(self) -> Iterator[Entry]:
        return (entry for entry in self._open if entry.fate not in _ENDED)

    def expire(self, entry: Entry) -> None:
        """Its lock is over: nothing is told to the broker, which has given it to somebody else."""
        entry.fate = Fate.STALE
        self.unsettled -= 1

    def take(self) -> list[Settlement]:
        news, self._news = self._news, []
        through = self._settled_prefix()
        singles = [self._told(entry) for entry in news if not entry.told]
        return singles if through is None else [*singles, through]

    def tell(self, driver: QueueDriver, work: list[Settlement]) -> Sequence[SettleFailure]:
        return driver.settle(work) if work else ()

    def abandon(self) -> None:
        for entry in self.entries():
            entry.fate = Fate.STALE
        self._open.clear()
        self._news.clear()
        self.unsettled = 0

    def _settled_prefix(self) -> Settlement | None:
        """Drop the settled front; where allowed its acks become one settlement, the result."""
        run: list[Entry] = []
        while self._open and self._open[0].fate in _ENDED:
            entry = self._open.popleft()
            is_ack = entry.settlement is not None and entry.settlement.verdict is Verdict.ACK
            if is_ack and not entry.told:
                run.append(entry)
        if not self.cumulative or len(run) < 2:
            return None
        for entry in run:
            entry.told = True
        return Settlement(run[-1].token, Verdict.ACK, through=True)

    @staticmethod
    def _told(entry: Entry) -> Settlement:
        assert entry.settlement is not None
        entry.told = True
        return entry.settlement


@dataclass(slots=True)
class _Partition:
    entries: deque[Entry] = field(default_factory=deque)  # from the first unsettled on
    position: int | None = None  # next offset to commit, once known


@dataclass(slots=True)
class LogLedger:
    """The settled prefix of each partition that this consumer owns."""

    unsettled: int = 0
    span: int = 0
    _partitions: dict[int, _Partition] = field(default_factory=dict)
    _news: set[int] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        assert entry.position is not None
        partition = self._partitions.get(entry.position.partition)
        if partition is None:
            partition = self._partitions[entry.position.partition] = _Partition()
        partition.entries.append(entry)
        self.unsettled += 1
        self.span += 1

    def settle(self, entry: Entry, verdict: Verdict, delay_s: float) -> None:
        """A log knows one verdict: done with it. RELEASE changes nothing, it comes again anyway."""
        if verdict is Verdict.RELEASE:
            return
        assert entry.position is not None
        number = entry.position.partition
        partition = self._partitions[number]
        entry.fate = Fate.SETTLED
        self.unsettled -= 1
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

    def take(self) -> dict[int, int]:
        news, self._news = self._news, set()
        return self.positions(news)

    def tell(self, driver: LogDriver, work: Mapping[int, int]) -> Sequence[SettleFailure]:
        if work:
            driver.commit(work)
        return ()

    def positions(self, numbers: Iterable[int]) -> dict[int, int]:
        """Next offset of each of these partitions in which anything was settled."""
        return {
            number: partition.position
            for number in numbers
            if (partition := self._partitions.get(number)) and partition.position is not None
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
                    entry.fate = Fate.STALE
                    self.unsettled -= 1

    def abandon(self) -> None:
        self.revoke(list(self._partitions))
