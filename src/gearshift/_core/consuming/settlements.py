"""Settlements of one connection's messages, and the reports of them to its driver.

``QueueSettlements`` makes single or cumulative settlements. ``LogSettlements``, in its own module,
moves each partition's position behind the settled prefix. Neither locks: see ``SharedWindow``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gearshift._core.consuming.entry import SETTLED, STALE, Entry, EntryState
from gearshift._core.consuming.suspects import Isolation
from gearshift.driver import Place, Settlement, SettleRequest

__all__ = ["QueueSettlements", "Report", "Settlements"]

#: So many ended entries, with their messages, are kept behind an unsettled one.
_MOST_ENDED = 64


class Report(NamedTuple):
    """News for a driver: ``settlements`` of a queue, ``places`` in a log.

    ``notes`` counts the notes of a log that must be stored before more is handed out, those of
    earlier reports included; 0 if all are stored. ``ends_turn``: the consumer's turn to work on a
    suspect is over once this is reported.
    """

    settlements: Sequence[SettleRequest] = ()
    places: Mapping[int, Place] = MappingProxyType({})
    notes: int = 0
    ends_turn: bool = False


class Settlements(ABC):
    """The part of a delivery window that differs between a queue and a log.

    ``unsettled_bytes`` are those of the bodies of the ``unsettled`` entries. ``span``, on a log,
    counts what a crash would bring back: also what is settled behind an unsettled message.
    ``withheld`` entries must not be handed out yet. ``news`` is what there is to report.
    """

    news: Collection[object]

    def __init__(self) -> None:
        self.unsettled = 0
        self.unsettled_bytes = 0
        self.span = 0

    @property
    def withheld(self) -> int:
        return 0

    def add(self, arrivals: Sequence[Entry]) -> None:
        """Take on these entries."""
        self.unsettled += len(arrivals)
        self.unsettled_bytes += sum([entry.size for entry in arrivals])

    def end(self, entry: Entry, state: EntryState) -> None:
        """End ``entry`` without a report."""
        entry.state = state
        self._end((entry,))

    def _end(self, entries: Sequence[Entry]) -> None:
        self.unsettled -= len(entries)
        self.unsettled_bytes -= sum([entry.size for entry in entries])

    @abstractmethod
    def admit(self, arrivals: Sequence[Entry], isolation: Isolation) -> Sequence[Entry]:
        """Take on arrivals; returns those that may be handed out now."""

    @abstractmethod
    def settle(self, entry: Entry, settlement: Settlement, delay_s: float) -> None:
        """Record the end of ``entry``, to be reported."""

    @abstractmethod
    def ack(self, entries: Sequence[Entry]) -> None:
        """Record that these are done, to be reported."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """The unsettled entries."""

    @abstractmethod
    def abandon(self) -> None:
        """Every unsettled entry becomes stale: the connection is gone, or a seek begins anew."""

    @abstractmethod
    def room_for_suspect(self, isolation: Isolation) -> int:
        """Number of messages that may be received while suspects come one by one."""

    @abstractmethod
    def take(self) -> Report:
        """The news for the driver, from now on taken for reported."""

    def return_overdue(self, now: float) -> Sequence[Entry]:
        """Give back what was not handed out in time; these are not to be handed out any more."""
        return ()

    def release_withheld(self, isolation: Isolation) -> None:
        """Choose what is handed out once the next report is made."""
        return

    def notes_stored(self, notes: int) -> Sequence[Entry]:
        """The driver has stored so many ``notes``; returns what may be handed out now."""
        return ()

    def leave(self) -> None:
        """Have the next report say that this consumer leaves in an orderly way."""
        return


class QueueSettlements(Settlements):
    """Each message settled for itself; runs of acks reported as one if ``cumulative``."""

    def __init__(self, cumulative: bool) -> None:
        super().__init__()
        self._cumulative = cumulative
        self._open: deque[Entry] = deque()  # in the order received
        self.news: list[Entry] = []
        self._return_at = math.inf  # when something must go back; too early does no harm

    def admit(self, arrivals: Sequence[Entry], isolation: Isolation) -> Sequence[Entry]:
        is_wanted = isolation.admit(arrivals)
        if arrivals[0].return_at is not None:
            self._return_at = min(self._return_at, arrivals[0].return_at)
        self.add(arrivals)
        if is_wanted:
            return arrivals
        for entry in arrivals:
            self.settle(entry, Settlement.RELEASE, 0.0)
        return ()

    def add(self, arrivals: Sequence[Entry]) -> None:
        super().add(arrivals)
        self._open.extend(arrivals)

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float) -> None:
        entry.settlement, entry.delay_s = settlement, delay_s
        self.end(entry, SETTLED)
        self.news.append(entry)

    def ack(self, entries: Sequence[Entry]) -> None:
        ack = Settlement.ACK
        for entry in entries:
            entry.state, entry.settlement = SETTLED, ack
        self._end(entries)
        self.news += entries

    def entries(self) -> Iterator[Entry]:
        return (entry for entry in self._open if not entry.has_ended)

    def room_for_suspect(self, isolation: Isolation) -> int:
        return isolation.room(self.unsettled)

    def return_overdue(self, now: float) -> Sequence[Entry]:
        """Once one entry must go back, all go that nobody has taken, so that their order stays."""
        if now < self._return_at:
            return ()
        waiting = [
            (entry, entry.return_at)
            for entry in self.entries()
            if entry.state is EntryState.BUFFERED and entry.return_at is not None
        ]
        self._return_at = min((moment for _, moment in waiting), default=math.inf)
        if self._return_at > now:
            return ()
        self._return_at = math.inf
        for entry, _ in waiting:
            self.settle(entry, Settlement.RELEASE, 0.0)
        return [entry for entry, _ in waiting]

    def take(self) -> Report:
        news, self.news = self.news, []
        through = self._settled_prefix()
        singles = [_reported(entry) for entry in news if not entry.reported]
        if len(self._open) > 2 * self.unsettled + _MOST_ENDED:
            self._open = deque(self.entries())  # the others are reported
        return Report(singles if through is None else [*singles, through])

    def abandon(self) -> None:
        for entry in self.entries():
            self.end(entry, STALE)
        self._open.clear()
        self.news.clear()
        self._return_at = math.inf

    def _settled_prefix(self) -> SettleRequest | None:
        """Drop the settled front; where allowed its acks become one settlement, the result."""
        run: list[Entry] = []
        waiting, ack = self._open, Settlement.ACK
        while waiting and ((state := waiting[0].state) is SETTLED or state is STALE):
            entry = waiting.popleft()
            if entry.settlement is ack and not entry.reported:
                run.append(entry)
        if not self._cumulative or len(run) < 2:
            return None
        for entry in run:
            entry.reported = True
        return SettleRequest(run[-1].token, Settlement.ACK, through=True)


def _reported(entry: Entry) -> SettleRequest:
    """What the driver is told of ``entry``, once."""
    assert entry.settlement is not None
    entry.reported = True
    if entry.settlement is not Settlement.RETRY:
        return SettleRequest(entry.token, entry.settlement, refused=entry.refused)
    return SettleRequest(
        entry.token, entry.settlement, entry.delay_s, message=entry.message, attempt=entry.attempts
    )
