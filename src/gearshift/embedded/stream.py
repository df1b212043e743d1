"""The LogDriver of both embedded backends: ownership, reading, positions, over a StreamMember.

Partitions change hands without stopping the others: a store says who *should* have each one; its
present owner lets go in its own ``receive`` (``revoked``), and only then does the new owner take
it. A member that stood still for too long is put out by the store, and notices that as ``lost``.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from gearshift.driver import LogDriver, LogEvents, Place, Received, Start, StartAt
from gearshift.message import Message, Position

__all__ = ["Bounds", "Ownership", "StreamConsumer", "StreamMember"]


class Bounds(NamedTuple):
    """A partition's first offset that is still there, and the one that the next message gets."""

    first: int
    next: int

    def clamp(self, offset: int) -> int:
        """The nearest offset that can be read."""
        return min(max(offset, self.first), self.next)


class Ownership(NamedTuple):
    """One member's partitions: ``owned`` now, ``wanted`` by the balance, ``free`` to take."""

    owned: frozenset[int]
    wanted: frozenset[int]
    free: frozenset[int]


class StreamMember(Protocol):
    """One member's view of a stream. Raises UnknownChannel once the channel is deleted."""

    def join(self) -> None:
        """Become a member, as a new one after being put out."""

    def ownership(self) -> Ownership | None:
        """None if this member was put out. Also keeps its membership."""

    def take(self, partitions: Collection[int]) -> Mapping[int, Place]:
        """Own the free ones of ``partitions``; the place of each one taken, whose next message
        retention may have deleted since."""

    def release(self, partitions: Collection[int], positions: Mapping[int, Place]) -> None:
        """Commit ``positions`` and let go of ``partitions``."""

    def commit(self, positions: Mapping[int, Place]) -> None:
        """Store positions of owned partitions; ignore the others. Waits until they are stored."""

    def read(self, partition: int, offset: int, limit: int) -> Sequence[tuple[int, Message]]:
        """Up to ``limit`` messages from ``offset`` on, with their offsets, which have no gaps."""

    def bounds(self, partition: int) -> Bounds:
        """The part of ``partition`` that can be read now."""

    def since(self, partition: int, time_ms: int) -> int:
        """The offset of the first message that was appended at or after ``time_ms``."""

    def offset_of(self, start: Start, partition: int) -> int | None:
        """The offset that ``start`` means; None if it leaves ``partition`` out."""
        match start.at:
            case StartAt.EARLIEST:
                return self.bounds(partition).first
            case StartAt.LATEST:
                return self.bounds(partition).next
            case StartAt.TIME:
                return self.since(partition, start.time_ms or 0)
            case StartAt.OFFSET:
                offset = start.positions.get(partition)
                return None if offset is None else self.bounds(partition).clamp(offset)

    def beginning(self, start: Start, partition: int) -> int:
        """The same for a group without position; the first message if ``start`` leaves it out."""
        offset = self.offset_of(start, partition)
        return self.bounds(partition).first if offset is None else offset

    def wait(self, timeout_s: float) -> bool:
        """Wait until something may have changed or ``wake``; True if it was ``wake``."""

    def wake(self) -> None:
        """End a ``wait``. Any thread."""

    def close(self) -> None:
        """Leave the group. Idempotent."""


class StreamConsumer(LogDriver):
    """LogDriver over a StreamMember; see the contract for what each method promises."""

    def __init__(self, member: StreamMember, events: LogEvents) -> None:
        self._member = member
        self._events = events
        self._next: dict[int, int] = {}
        self._turn = 0
        self._announced = False
        member.join()

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        deadline = time.monotonic() + timeout_s
        while True:
            self._follow_ownership()
            found = self._read(max_messages)
            left = deadline - time.monotonic()
            if found or left <= 0 or self._member.wait(left):
                return found

    def commit(self, positions: Mapping[int, Place]) -> None:
        owned = {part: place for part, place in positions.items() if part in self._next}
        if owned:
            self._member.commit(owned)

    def flush(self, timeout_s: float) -> bool:
        return True  # a commit has waited

    def seek(self, start: Start) -> None:
        for partition in self._next:
            offset = self._member.offset_of(start, partition)
            if offset is not None:
                self._next[partition] = offset

    def wake(self) -> None:
        self._member.wake()

    def close(self, timeout_s: float) -> None:
        self._next.clear()
        self._member.close()

    def _follow_ownership(self) -> None:
        view = self._member.ownership()
        if view is None:
            self._lose(set(self._next))
            self._member.join()
            view = self._member.ownership()
            assert view is not None, "a member that has just joined was put out"
        self._lose(self._next.keys() - view.owned)
        self._let_go(self._next.keys() - view.wanted)
        self._take(view.free)

    def _lose(self, partitions: Collection[int]) -> None:
        if partitions:
            for partition in partitions:
                del self._next[partition]
            self._events.lost(sorted(partitions))

    def _let_go(self, partitions: Collection[int]) -> None:
        if partitions:
            positions = self._events.revoked(sorted(partitions))
            for partition in partitions:
                del self._next[partition]
            self._member.release(partitions, positions)

    def _take(self, partitions: Collection[int]) -> None:
        taken = self._member.take(partitions) if partitions else {}
        self._next.update(taken)
        if taken or not self._announced:
            self._announced = True
            self._events.assigned(sorted(taken), taken)

    def _read(self, max_messages: int) -> list[Received]:
        """Share ``max_messages`` among the partitions, starting with another one each time."""
        partitions = sorted(self._next)
        self._turn += 1
        found: list[Received] = []
        for number in range(len(partitions)):
            room = max_messages - len(found)
            if room <= 0:
                break
            partition = partitions[(number + self._turn) % len(partitions)]
            share = -(-room // (len(partitions) - number))
            found += self._read_partition(partition, share)
        return found

    def _read_partition(self, partition: int, limit: int) -> list[Received]:
        rows = self._member.read(partition, self._next[partition], limit)
        if rows:
            if missing := rows[0][0] - self._next[partition]:
                self._events.skipped(partition, missing)
            self._next[partition] = rows[-1][0] + 1
        positions = [Position(partition, offset) for offset, _ in rows]
        return [Received(row[1], at, at) for row, at in zip(rows, positions, strict=True)]
