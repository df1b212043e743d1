"""The stream driver: one member of one group of a stream, driven by the thread that receives."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from gearshift.driver import ConsumerSpec, LogDriver, LogEvents, Place, Received, Start, StartAt
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.rpc import find
from gearshift_rabbitmq.stream.members import Members
from gearshift_rabbitmq.stream.names import StreamNames
from gearshift_rabbitmq.stream.owners import release, try_own
from gearshift_rabbitmq.stream.positions import Positions
from gearshift_rabbitmq.stream.reader import PartitionReader
from gearshift_rabbitmq.stream.scan import end_of

__all__ = ["StreamConsumer"]

#: How often a partition that another still has is asked for, and the longest sleep. Seconds.
_ASK_EVERY_S = 0.25
_COMMIT_S = 5.0

#: How many messages the broker may push until core asks for more, when it knows their size.
_FIRST_WINDOW = 8


class StreamConsumer(LogDriver):
    """Locks, positions, members and messages share one connection: when it ends, everything that
    this member had is free for others."""

    def __init__(self, connect: Callable[[str], Connection], spec: ConsumerSpec, events: LogEvents):
        """Connect and join. Raises pika's error."""
        self._spec = spec
        self._events = events
        self._names = StreamNames.of(spec.channel)
        self._readers: dict[int, PartitionReader] = {}
        self._locks: dict[int, str] = {}
        self._committed: dict[int, int] = {}
        self._window = -(-min(spec.prefetch, _FIRST_WINDOW) // self._names.partitions)
        self._turn = 0
        self._asked_at = 0.0
        self._announced = False
        self._woken = False
        self._closed = False
        self._members: Members | None = None
        self._positions: Positions | None = None
        self._connection = connect(f"stream consumer {spec.channel.name}/{spec.group}")
        try:
            self._join()
        except BaseException:
            self._connection.close(1.0)
            raise

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        deadline = time.monotonic() + timeout_s
        self._connection.step(0.0)
        while True:
            self._follow_members()
            self._fit(max_messages)
            found = self._take(max_messages)
            left = deadline - time.monotonic()
            if found or self._woken or left <= 0:
                self._woken = False
                return found
            self._connection.step(min(left, _ASK_EVERY_S))

    def commit(self, positions: Mapping[int, Place]) -> None:
        """See LogDriver. An ephemeral reader has nothing to commit."""
        self._committed.update(positions)
        if self._positions is not None:
            self._positions.commit({p: at for p, at in positions.items() if p in self._readers})

    def flush(self, timeout_s: float) -> bool:
        try:
            if self._positions is not None:
                self._positions.flush(timeout_s)
        except TimeoutError:
            return False
        return True

    def seek(self, start: Start) -> None:
        for partition in list(self._readers):
            if start.at is not StartAt.OFFSET or partition in start.positions:
                self._readers.pop(partition).close()
                self._readers[partition] = self._open(partition, start)

    @property
    def heard_at(self) -> float:
        return self._connection.heard_at

    @property
    def drained(self) -> bool:
        return self._announced and all(reader.drained for reader in self._readers.values())

    def wake(self) -> None:
        self._woken = True
        self._connection.wake()

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._positions is not None and self._connection.error is None:
                self._positions.flush(timeout_s)
            if self._members is not None and self._connection.error is None:
                self._members.leave()
        finally:
            self._readers.clear()
            self._connection.close(max(0.5, min(timeout_s, 2.0)))

    def _join(self) -> None:
        if self._spec.ephemeral:
            for partition in range(self._names.partitions):
                self._readers[partition] = self._open(partition, self._spec.start)
            return
        self._positions = Positions(self._connection, self._names, self._spec.group)
        exchange = self._names.members(self._spec.group)
        if find(self._connection, "exchange", exchange) is None:  # a new group
            self._positions.register()
        self._members = Members(self._connection, exchange, self._spec.member)

    def _follow_members(self) -> None:
        if self._members is None or self._positions is None:
            if not self._announced:
                self._announced = True
                self._events.assigned(sorted(self._readers))
            return
        self._positions.check()
        self._positions.keep()
        if not self._members.settled:
            return
        wanted = self._members.share(self._names.partitions)
        if gone := self._readers.keys() - wanted:
            self._let_go(sorted(gone), self._positions)
        now = time.monotonic()
        if now - self._asked_at > _ASK_EVERY_S:
            self._asked_at = now
            taken = self._own(wanted - self._readers.keys(), self._positions)
            if taken or not self._announced:
                self._announced = True
                self._events.assigned(sorted(taken), taken)

    def _own(self, partitions: Collection[int], positions: Positions) -> dict[int, Place]:
        taken = {}
        for partition in sorted(partitions):
            locks = self._names.locks(partition, self._spec.group)
            if lock := try_own(self._connection, locks):
                self._locks[partition] = lock
                found = positions.read(partition)
                start, place = found or self._begin(partition, positions)
                taken[partition] = place
                # A new group's position is 0, which is wherever the partition begins.
                position = int(place) if place > 0 else None
                self._readers[partition] = self._open(partition, start, position)
        return taken

    def _begin(self, partition: int, positions: Positions) -> tuple[Start, Place]:
        """Where the group begins, committed at once: it must not move until something is read."""
        start = self._spec.start
        if start.at is StartAt.LATEST:
            end = end_of(self._connection, self._names.partition(partition))
            start = Start(StartAt.OFFSET, {partition: end})
        elif start.at is not StartAt.TIME:
            start = Start(StartAt.OFFSET, {partition: start.positions.get(partition, 0)})
        return start, positions.begin(partition, start)

    def _let_go(self, partitions: Sequence[int], positions: Positions) -> None:
        left_at = self._events.revoked(partitions)
        positions.commit({p: at for p, at in left_at.items() if p in partitions})
        positions.flush(_COMMIT_S)
        for partition in partitions:
            self._readers.pop(partition).close()
            positions.forget(partition)
            release(self._connection, self._locks.pop(partition))

    def _open(self, partition: int, start: Start, position: int | None = None) -> PartitionReader:
        queue = self._names.partition(partition)
        self._committed.pop(partition, None)
        if start.at is StartAt.OFFSET and partition not in start.positions:
            start = Start()
        return PartitionReader(
            self._connection,
            queue,
            partition,
            start,
            self._window,
            position=position,
            skipped=self._events.skipped,
        )

    def _fit(self, max_messages: int) -> None:
        """Have the broker push about as many as core has room for, which goes by their size: all
        that ``prefetch`` allows for each partition, or fewer in all partitions together."""
        if not max_messages or not self._readers:
            return
        wanted = max_messages
        for partition, reader in self._readers.items():
            if reader.next is not None:
                committed = self._committed.setdefault(partition, reader.next)
                wanted += max(0, reader.next - committed)
        prefetch = self._spec.prefetch
        self._window = prefetch if wanted >= prefetch else -(-wanted // len(self._readers))
        for reader in self._readers.values():
            reader.fit(self._window)

    def _take(self, max_messages: int) -> list[Received]:
        """Share ``max_messages`` among the partitions, beginning with another one each time."""
        self._turn += 1
        partitions = sorted(self._readers)
        found: list[Received] = []
        for number in range(len(partitions)):
            partition = partitions[(number + self._turn) % len(partitions)]
            share = -(-(max_messages - len(found)) // (len(partitions) - number))
            found += self._readers[partition].take(share)
        return found
