"""The log driver: one member of one group of a stream, driven by the thread that receives."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from gearshift.driver import ConsumerSpec, LogEvents, Place, Received, Start, StartAt
from gearshift_rabbitmq.connection import Link
from gearshift_rabbitmq.stream.layout import Layout, has_exchange
from gearshift_rabbitmq.stream.members import Members
from gearshift_rabbitmq.stream.owners import release, try_own
from gearshift_rabbitmq.stream.positions import Positions
from gearshift_rabbitmq.stream.reading import Reading, end_of

__all__ = ["StreamConsumer"]

#: How often a partition that another still has is asked for, and the longest sleep. Seconds.
_ASK_EVERY_S = 0.25
_COMMIT_S = 5.0


class StreamConsumer:
    """A LogDriver. Locks, positions, members and messages share one connection: when it ends,
    everything that this member had is free for others."""

    def __init__(self, connect: Callable[[str], Link], spec: ConsumerSpec, events: LogEvents):
        """Connect and join. Raises pika's error."""
        self._spec = spec
        self._events = events
        self._layout = Layout.of(spec.channel)
        self._readings: dict[int, Reading] = {}
        self._locks: dict[int, str] = {}
        self._turn = 0
        self._asked_at = 0.0
        self._announced = False
        self._woken = False
        self._closed = False
        self._members: Members | None = None
        self._positions: Positions | None = None
        self._link = connect(f"stream consumer {spec.channel.name}/{spec.group}")
        try:
            self._join()
        except BaseException:
            self._link.close(1.0)
            raise

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        """See LogDriver."""
        deadline = time.monotonic() + timeout_s
        self._link.step(0.0)
        while True:
            self._follow_members()
            found = self._take(max_messages)
            left = deadline - time.monotonic()
            if found or self._woken or left <= 0:
                self._woken = False
                return found
            self._link.step(min(left, _ASK_EVERY_S))

    def commit(self, positions: Mapping[int, Place]) -> None:
        """See LogDriver. An ephemeral reader has nothing to commit."""
        if self._positions is not None:
            self._positions.commit({p: at for p, at in positions.items() if p in self._readings})

    def flush(self, timeout_s: float) -> bool:
        """See LogDriver."""
        try:
            if self._positions is not None:
                self._positions.flush(timeout_s)
        except TimeoutError:
            return False
        return True

    def seek(self, start: Start) -> None:
        """See LogDriver."""
        for partition in list(self._readings):
            if start.at is not StartAt.OFFSET or partition in start.positions:
                self._readings.pop(partition).close()
                self._readings[partition] = self._open(partition, start)

    @property
    def heard_at(self) -> float:
        """See QueueDriver."""
        return self._link.heard_at

    def wake(self) -> None:
        """See LogDriver. Any thread, also after close."""
        self._woken = True
        self._link.wake()

    def close(self, timeout_s: float) -> None:
        """See LogDriver."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._positions is not None and self._link.error is None:
                self._positions.flush(timeout_s)
            if self._members is not None and self._link.error is None:
                self._members.leave()
        finally:
            self._readings.clear()
            self._link.close(max(0.5, min(timeout_s, 2.0)))

    # ── ownership ────────────────────────────────────────────────────────────────────────────

    def _join(self) -> None:
        if self._spec.ephemeral:
            for partition in range(self._layout.partitions):
                self._readings[partition] = self._open(partition, self._spec.start)
            return
        self._positions = Positions(self._link, self._layout, self._spec.group)
        exchange = self._layout.members(self._spec.group)
        if not has_exchange(self._link, exchange):  # a new group
            self._positions.register()
        self._members = Members(self._link, exchange, self._spec.member)

    def _follow_members(self) -> None:
        if self._members is None or self._positions is None:
            if not self._announced:
                self._announced = True
                self._events.assigned(sorted(self._readings))
            return
        self._positions.check()
        self._positions.keep()
        if not self._members.settled:
            return
        wanted = self._members.share(self._layout.partitions)
        if gone := self._readings.keys() - wanted:
            self._let_go(sorted(gone), self._positions)
        now = time.monotonic()
        if now - self._asked_at > _ASK_EVERY_S:
            self._asked_at = now
            taken = self._own(wanted - self._readings.keys(), self._positions)
            if taken or not self._announced:
                self._announced = True
                self._events.assigned(sorted(taken), taken)

    def _own(self, partitions: Collection[int], positions: Positions) -> dict[int, Place]:
        taken = {}
        for partition in sorted(partitions):
            locks = self._layout.locks(partition, self._spec.group)
            if lock := try_own(self._link, locks):
                self._locks[partition] = lock
                found = positions.read(partition)
                start, place = found or self._begin(partition, positions)
                taken[partition] = place
                # A new group's position is 0, which is wherever the partition begins.
                position = int(place) if place > 0 else None
                self._readings[partition] = self._open(partition, start, position)
        return taken

    def _begin(self, partition: int, positions: Positions) -> tuple[Start, Place]:
        """Where the group begins, committed at once: it must not move until something is read."""
        start = self._spec.start
        if start.at is StartAt.LATEST:
            end = end_of(self._link, self._layout.partition(partition))
            start = Start(StartAt.OFFSET, {partition: end})
        elif start.at is not StartAt.TIME:
            start = Start(StartAt.OFFSET, {partition: start.positions.get(partition, 0)})
        return start, positions.begin(partition, start)

    def _let_go(self, partitions: Sequence[int], positions: Positions) -> None:
        left_at = self._events.revoked(partitions)
        positions.commit({p: at for p, at in left_at.items() if p in partitions})
        positions.flush(_COMMIT_S)
        for partition in partitions:
            self._readings.pop(partition).close()
            positions.forget(partition)
            release(self._link, self._locks.pop(partition))

    # ── reading ──────────────────────────────────────────────────────────────────────────────

    def _open(self, partition: int, start: Start, position: int | None = None) -> Reading:
        queue = self._layout.partition(partition)
        if start.at is StartAt.OFFSET and partition not in start.positions:
            start = Start()
        return Reading(
            self._link,
            queue,
            partition,
            start,
            self._spec.prefetch,
            position=position,
            skipped=self._events.skipped,
        )

    def _take(self, max_messages: int) -> list[Received]:
        """Share ``max_messages`` among the partitions, beginning with another one each time."""
        self._turn += 1
        partitions = sorted(self._readings)
        found: list[Received] = []
        for number in range(len(partitions)):
            partition = partitions[(number + self._turn) % len(partitions)]
            share = -(-(max_messages - len(found)) // (len(partitions) - number))
            found += self._readings[partition].take(share)
        return found
