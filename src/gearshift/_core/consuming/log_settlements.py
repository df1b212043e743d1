"""The settled prefix of each partition of a log, and what is suspected there."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gearshift._core.consuming.entry import IN_HAND, SETTLED, STALE, Entry
from gearshift._core.consuming.settlements import Report, Settlements
from gearshift._core.consuming.suspects import Isolation, Mark
from gearshift.driver import Place, Settlement

__all__ = ["LogSettlements"]


@dataclass(slots=True)
class _Partition:
    entries: deque[Entry] = field(default_factory=deque)  # from the first unsettled on
    position: int | None = None  # next offset to commit, once known
    mark: Mark | None = None  # where the driver stores notes
    is_news: bool = False  # the driver must be told its place

    def advance(self) -> int:
        """Go behind the settled front; the number of messages in it."""
        entries, count, done = self.entries, 0, None
        while entries and entries[0].state is SETTLED:
            done = entries.popleft()
            count += 1
        if done is not None:
            assert done.position is not None
            self.position = done.position.offset + 1
            self.is_news = True
        return count

    def place(self) -> Place | None:
        if self.position is None:
            return None
        return Place(self.position, self.mark.note(self.position) if self.mark else "")


class LogSettlements(Settlements):
    """A position never passes an unsettled message.

    A log takes nothing back, so suspects and what came behind them are withheld here, in order.
    Nothing more is handed out while the broker may lack a note without which a death would not be
    noticed. ``holder`` names the consumer in notes, and ``window`` is its prefetch.
    """

    def __init__(self, holder: str = "0", window: int = 1) -> None:
        super().__init__()
        self.holder = holder
        self._window = window
        self._partitions: dict[int, _Partition] = {}
        self.news: set[int] = set()  # partitions in which something has changed
        self._waiting: deque[Entry] = deque()  # withheld
        self._going: list[Entry] = []  # withheld, and handed out once that is noted
        self._notes = 0  # how many notes there were that must be stored
        self._stored_notes = 0

    @property
    def withheld(self) -> int:
        return len(self._waiting) + len(self._going)

    # ── for the window ──

    def admit(self, arrivals: Sequence[Entry], isolation: Isolation) -> Sequence[Entry]:
        self.add(arrivals)
        first = next((n for n, entry in enumerate(arrivals) if entry.lost), len(arrivals))
        if isolation.active or self.withheld or not self._noted():
            first = 0
        isolation.active |= any(entry.lost for entry in arrivals[first:])
        self._waiting.extend(arrivals[first:])
        return arrivals[:first]

    def add(self, arrivals: Sequence[Entry]) -> None:
        """Take on arrivals; ``lost`` is then what is known of each."""
        super().add(arrivals)
        self.span += len(arrivals)
        partitions = self._partitions
        for entry in arrivals:
            assert entry.position is not None
            partition = partitions.get(entry.position.partition)
            if partition is None:
                partition = partitions[entry.position.partition] = _Partition()
            mark = partition.mark
            if mark is not None and mark.suspects:
                entry.lost = mark.losses(entry.position.offset)
                entry.attempt = entry.lost + 1 if entry.lost > 1 else None
            partition.entries.append(entry)

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float) -> None:
        """A log knows one settlement, done. RELEASE changes nothing, as the message comes again."""
        if settlement is Settlement.RELEASE:
            return
        assert entry.position is not None
        self.end(entry, SETTLED)
        self.news.add(entry.position.partition)

    def ack(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.state = SETTLED
        self._end(entries)
        self.news |= {entry.position.partition for entry in entries if entry.position}

    def entries(self) -> Iterator[Entry]:
        for partition in self._partitions.values():
            yield from (entry for entry in partition.entries if entry.state is not SETTLED)

    def room_for_suspect(self, isolation: Isolation) -> int:
        return 0  # they are here already

    def release_withheld(self, isolation: Isolation) -> None:
        """A suspect goes out alone and when somebody asks, others as they came."""
        self._advance(self.news)
        isolation.active = isolation.active and any(entry.lost for entry in self.entries())
        isolation.together &= isolation.active
        waiting = self._waiting
        if not waiting or self._going or (isolation.has_suspect and not isolation.together):
            return
        while waiting and (isolation.together or not waiting[0].lost):
            self._going.append(waiting.popleft())
        if waiting and not self._going and isolation.room(self.unsettled - len(waiting)):
            isolation.suspect = waiting.popleft()
            self._going.append(isolation.suspect)
        for entry in self._going:
            if entry.lost:
                self._note_hand_out(entry)

    def take(self) -> Report:
        news, self.news = self.news, set()
        self._advance(news)
        places = self.positions(number for number in news if self._partitions[number].is_news)
        for number in news:
            self._partitions[number].is_news = False
        return Report(places=places, notes=0 if self._noted() else self._notes)

    def _advance(self, numbers: Iterable[int]) -> None:
        """Go behind what is settled in these partitions."""
        for number in numbers:
            self.span -= self._partitions[number].advance()

    def notes_stored(self, notes: int) -> Sequence[Entry]:
        self._stored_notes = max(self._stored_notes, notes)
        if not self._noted():
            return ()
        going, self._going = self._going, []
        return going

    def abandon(self) -> None:
        """Forget every entry; where this consumer stands it goes on standing."""
        self._waiting.clear()
        self._going.clear()
        self.news.clear()
        for partition in self._partitions.values():
            self._drop(partition)

    # ── for the events of the driver ──

    def assign(self, places: Mapping[int, Place]) -> None:
        """Stand in these partitions, and have that noted."""
        for number, place in places.items():
            mark = Mark(place, self.holder, self._window)
            self._partitions[number] = _Partition(position=mark.position, mark=mark)
            self._renew_note(number)

    def leave(self, numbers: Iterable[int] | None = None) -> None:
        """Note with the next positions that nobody stands in these partitions; None: in any."""
        for number in list(self._partitions) if numbers is None else numbers:
            partition = self._partitions.get(number)
            if partition is not None and partition.mark is not None:
                partition.mark.leave()
                partition.is_news = True
                self.news.add(number)

    def positions(self, numbers: Iterable[int]) -> dict[int, Place]:
        """Next offset of each of these partitions, where it is known."""
        known = [number for number in numbers if number in self._partitions]
        self._advance(known)
        places = {number: self._partitions[number].place() for number in known}
        return {number: place for number, place in places.items() if place is not None}

    def in_hand(self, numbers: Iterable[int]) -> bool:
        """True if the user still works on a message of one of these partitions."""
        return any(
            entry.state is IN_HAND
            for number in numbers
            if number in self._partitions
            for entry in self._partitions[number].entries
        )

    def withdraw(self, numbers: Container[int]) -> None:
        """Hand out nothing of these partitions that is withheld."""
        self._waiting = deque(entry for entry in self._waiting if not entry.lies_in(numbers))
        self._going = [entry for entry in self._going if not entry.lies_in(numbers)]

    def revoke(self, numbers: Iterable[int]) -> None:
        """These partitions are not ours any more: their unsettled entries become stale."""
        for number in numbers:
            self.news.discard(number)
            partition = self._partitions.pop(number, None)
            if partition is not None:
                self._drop(partition)

    # ── inside ──

    def _drop(self, partition: _Partition) -> None:
        self.span -= partition.advance() + len(partition.entries)
        partition.is_news = False
        for entry in partition.entries:
            if entry.state is not SETTLED:
                self.end(entry, STALE)
        partition.entries.clear()

    def _noted(self) -> bool:
        return self._stored_notes == self._notes

    def _note_hand_out(self, entry: Entry) -> None:
        assert entry.position is not None
        partition = self._partitions[entry.position.partition]
        if partition.mark is not None and partition.position is not None:
            partition.mark.hold(entry.position.offset, partition.position)
            self._renew_note(entry.position.partition)

    def _renew_note(self, number: int) -> None:
        self._partitions[number].is_news = True
        self.news.add(number)
        self._notes += 1
