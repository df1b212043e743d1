"""The settled prefix of each partition of a log, and what is suspected there."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gearshift._core.consuming.entry import Entry, Fate
from gearshift._core.consuming.settlements import Report, Settlements
from gearshift._core.consuming.suspects import Isolation, Mark
from gearshift.driver import Place, Settlement

__all__ = ["LogSettlements"]


@dataclass(slots=True)
class _Partition:
    entries: deque[Entry] = field(default_factory=deque)  # from the first unsettled on
    position: int | None = None  # next offset to commit, once known
    mark: Mark | None = None  # where the driver stores notes

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
        self._holder = holder
        self._window = window
        self._partitions: dict[int, _Partition] = {}
        self.news: set[int] = set()
        self._waiting: deque[Entry] = deque()  # withheld
        self._going: list[Entry] = []  # withheld, and handed out once that is noted
        self._notes = 0  # how many notes there were that must be stored
        self._stored_notes = 0

    @property
    def withheld(self) -> int:
        return len(self._waiting) + len(self._going)

    # ── for the window ──

    def admit(self, arrivals: Sequence[Entry], isolation: Isolation) -> Sequence[Entry]:
        free = []
        for entry in arrivals:
            self.add(entry)
            isolation.active |= entry.lost > 0
            if isolation.active or self.withheld or not self._noted():
                self._waiting.append(entry)
            else:
                free.append(entry)
        return free

    def add(self, entry: Entry) -> None:
        """Take on an arrival; ``entry.lost`` is then what is known of it."""
        super().add(entry)
        assert entry.position is not None
        number, offset = entry.position.partition, entry.position.offset
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = _Partition()
        if partition.mark is not None:
            entry.lost = partition.mark.losses(offset)
            entry.attempt = entry.lost + 1 if entry.lost > 1 else None
        partition.entries.append(entry)
        self.span += 1

    def settle(self, entry: Entry, settlement: Settlement, delay_s: float) -> None:
        """A log knows one settlement, done. RELEASE changes nothing, as the message comes again."""
        if settlement is Settlement.RELEASE:
            return
        assert entry.position is not None
        number = entry.position.partition
        partition = self._partitions[number]
        self.end(entry, Fate.SETTLED)
        while partition.entries and partition.entries[0].fate is Fate.SETTLED:
            done = partition.entries.popleft()
            self.span -= 1
            assert done.position is not None
            partition.position = done.position.offset + 1
            self.news.add(number)

    def entries(self) -> Iterator[Entry]:
        for partition in self._partitions.values():
            yield from (entry for entry in partition.entries if entry.fate is not Fate.SETTLED)

    def room_for_suspect(self, isolation: Isolation) -> int:
        return 0  # they are here already

    def release_withheld(self, isolation: Isolation) -> None:
        """A suspect goes out alone and when somebody asks, others as they came."""
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
        return Report(places=self.positions(news), notes=0 if self._noted() else self._notes)

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
            mark = Mark(place, self._holder, self._window)
            self._partitions[number] = _Partition(position=mark.position, mark=mark)
            self._renew_note(number)

    def leave(self, numbers: Iterable[int] | None = None) -> None:
        """Note with the next positions that nobody stands in these partitions; None: in any."""
        for number in list(self._partitions) if numbers is None else numbers:
            partition = self._partitions.get(number)
            if partition is not None and partition.mark is not None:
                partition.mark.leave()
                self.news.add(number)

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
        self.span -= len(partition.entries)
        for entry in partition.entries:
            if entry.fate is not Fate.SETTLED:
                self.end(entry, Fate.STALE)
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
        self.news.add(number)
        self._notes += 1
