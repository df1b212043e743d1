"""The channels of one memory Backend: what is stored, under one lock per channel.

A ``QueueChannel`` keeps groups of unsettled messages, a ``StreamChannel`` logs and positions. Every
method here expects the channel's lock (``changed``) to be held by its caller.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from gearshift.driver import ChannelSpec, GroupStatus, Outcome, Stored
from gearshift.embedded.capabilities import DEFAULT_PARTITIONS, unroutable
from gearshift.embedded.memory.group import Group, Shared
from gearshift.embedded.partitions import partition_of, spread
from gearshift.embedded.stream import Bounds
from gearshift.errors import PublishRefused, UnknownChannel
from gearshift.message import Key, Message, Position, Semantics

__all__ = [
    "Channel",
    "Clock",
    "Partition",
    "QueueChannel",
    "Record",
    "StreamChannel",
    "StreamGroup",
]

Clock: TypeAlias = Callable[[], float]


class _Channel:
    """Base of both kinds. ``version`` rises with every change that somebody may wait for."""

    semantics: Semantics
    partitions = 0

    def __init__(self, spec: ChannelSpec, max_messages: int, clock: Clock) -> None:
        self.name = spec.name
        self.changed = threading.Condition()
        self.version = 0
        self.deleted = False
        self.now = clock
        self._max_messages = max_messages

    def announce(self) -> None:
        """Something changed: whoever waits looks again."""
        self.version += 1
        self.changed.notify_all()

    def coming(self) -> Iterator[float]:
        """When messages that wait for a time are due, of those that are not due yet."""
        return iter(())

    def require(self) -> None:
        """Raise UnknownChannel if the channel was deleted."""
        if self.deleted:
            raise UnknownChannel(f"channel {self.name!r} was deleted")

    def _full(self, *, retryable: bool) -> PublishRefused:
        return PublishRefused(
            f"the channel holds max_messages = {self._max_messages} messages",
            hint="consume them, purge, or raise max_messages in the profile",
            retryable=retryable,
        )


class QueueChannel(_Channel):
    """Messages that wait for groups; each is stored once, whatever the number of groups."""

    semantics = Semantics.QUEUE

    def __init__(self, spec: ChannelSpec, max_messages: int, clock: Clock) -> None:
        super().__init__(spec, max_messages, clock)
        self.groups: dict[str, Group] = {}
        self._stored = 0
        self._number = 0

    def publish(self, messages: Sequence[Message]) -> list[Outcome]:
        """Store what there is room for. Raises Unroutable."""
        groups = list(self.groups.values())
        if not groups:
            raise unroutable()
        room = max(0, self._max_messages - self._stored)
        at = self.now()
        for message in messages[:room]:
            self._number += 1
            shared = Shared(message, self._number, at, len(groups))
            for group in groups:
                group.add(shared)
        self._stored += min(room, len(messages))
        refusal = self._full(retryable=True)
        return [
            Outcome(n, Stored.YES) if n < room else Outcome(n, Stored.NO, None, refusal)
            for n in range(len(messages))
        ]

    def coming(self) -> Iterator[float]:
        with self.changed:
            now = self.now()
            times = [one[0] for group in self.groups.values() for one in group.delayed]
        return (due for due in times if due > now)

    def settled(self, shared: Shared) -> None:
        """One more group is done with ``shared``."""
        shared.pending -= 1
        if not shared.pending:
            self._stored -= 1

    def drop_group(self, name: str) -> None:
        """Forget a group and all that only it still needed."""
        group = self.groups.pop(name, None)
        for entry in group.entries.values() if group else ():
            self.settled(entry.shared)

    def status(self, name: str) -> GroupStatus:
        """The state of a group; nothing is known of one that is not there."""
        group = self.groups.get(name)
        if group is None:
            return GroupStatus(group=name)
        in_flight = sum(len(hand.held) for hand in group.hands)
        oldest = next(iter(group.entries.values()), None)
        return GroupStatus(
            group=name,
            ready=len(group.entries) - in_flight,
            in_flight=in_flight,
            oldest_age_s=None if oldest is None else max(0.0, self.now() - oldest.shared.at),
            consumers=len(group.hands),
        )

    def purge(self, name: str) -> int:
        """Drop what waits for a group; how many messages that were."""
        gone = self.groups[name].purge()
        for shared in gone:
            self.settled(shared)
        self.announce()
        return len(gone)


class Record(NamedTuple):
    """One message of a log and when it was appended, in milliseconds."""

    at_ms: int
    message: Message


class Partition:
    """An append-only log whose oldest records may be cut off."""

    def __init__(self) -> None:
        self.first = 0
        self._records: list[Record] = []

    @property
    def bounds(self) -> Bounds:
        """What can be read."""
        return Bounds(self.first, self.first + len(self._records))

    def append(self, at_ms: int, message: Message) -> int:
        """Store ``message``; its offset. Times never fall, even if the clock does."""
        if self._records:
            at_ms = max(at_ms, self._records[-1].at_ms)
        self._records.append(Record(at_ms, message))
        return self.first + len(self._records) - 1

    def read(self, offset: int, limit: int) -> list[tuple[int, Message]]:
        """Up to ``limit`` messages from ``offset`` or, if that is gone, from the first one on."""
        start = max(offset, self.first) - self.first
        found = self._records[start : start + limit]
        return [(self.first + start + n, record.message) for n, record in enumerate(found)]

    def at(self, offset: int) -> int:
        """The time at which the message at ``offset``, or the next one, was appended."""
        return self._records[max(offset, self.first) - self.first].at_ms

    def since(self, time_ms: int) -> int:
        """The offset of the first message appended at or after ``time_ms``."""
        return self.first + bisect_left(self._records, time_ms, key=attrgetter("at_ms"))

    def trim(self, before_ms: int) -> int:
        """Cut off what was appended before; how many that were."""
        gone = self.since(before_ms) - self.first
        del self._records[:gone]
        self.first += gone
        return gone


class StreamGroup:
    """Positions of a group, its members in order of joining, and who should and does own what."""

    def __init__(self) -> None:
        self.positions: dict[int, int] = {}
        self.members: list[object] = []
        self.wanted: dict[int, object] = {}
        self.owner: dict[int, object] = {}


class StreamChannel(_Channel):
    """One log per partition, and groups with positions."""

    semantics = Semantics.STREAM

    def __init__(self, spec: ChannelSpec, max_messages: int, clock: Clock) -> None:
        super().__init__(spec, max_messages, clock)
        self.partitions = spec.partitions or DEFAULT_PARTITIONS
        self.retention_s = spec.retention_s
        self.logs = [Partition() for _ in range(self.partitions)]
        self.groups: dict[str, StreamGroup] = {}
        self._stored = 0
        self._turn = 0

    def publish(self, messages: Sequence[Message]) -> list[Outcome]:
        """Append what there is room for."""
        self.expire()
        at_ms = int(self.now() * 1000)
        outcomes = []
        for number, message in enumerate(messages):
            if self._stored >= self._max_messages:
                refusal = self._full(retryable=self.retention_s is not None)
                outcomes.append(Outcome(number, Stored.NO, None, refusal))
                continue
            partition = self._partition(message.key)
            offset = self.logs[partition].append(at_ms, message)
            self._stored += 1
            outcomes.append(Outcome(number, Stored.YES, Position(partition, offset)))
        return outcomes

    def expire(self) -> None:
        """Cut off what is older than the retention."""
        if self.retention_s is not None:
            before_ms = int((self.now() - self.retention_s) * 1000)
            self._stored -= sum(log.trim(before_ms) for log in self.logs)

    def status(self, name: str) -> GroupStatus:
        """The state of a group; nothing is known of one that is not there."""
        self.expire()
        group = self.groups.get(name)
        if group is None:
            return GroupStatus(group=name, retained=self._stored)
        behind = [
            (log.bounds.next - at, log.at(at))
            for log, at in self._positions(group)
            if at < log.bounds.next
        ]
        oldest_ms = min((at_ms for _, at_ms in behind), default=None)
        return GroupStatus(
            group=name,
            lag=sum(count for count, _ in behind),
            oldest_age_s=None if oldest_ms is None else max(0.0, self.now() - oldest_ms / 1000),
            consumers=len(group.members),
        )

    def purge(self, name: str) -> int:
        """Move a group to the end. Its members lose their partitions and take them there again."""
        group = self.groups[name]
        behind = sum(log.bounds.next - at for log, at in self._positions(group))
        group.positions = {p: log.bounds.next for p, log in enumerate(self.logs)}
        group.owner = {}
        self.rebalance(group)
        return behind

    def rebalance(self, group: StreamGroup) -> None:
        """Share the partitions anew, after members came or went."""
        group.owner = {p: member for p, member in group.owner.items() if member in group.members}
        group.wanted = spread(range(self.partitions), group.members, group.wanted)
        self.announce()

    def _positions(self, group: StreamGroup) -> list[tuple[Partition, int]]:
        """Each log, and the group's position in what can be read of it."""
        return [(log, log.bounds.clamp(group.positions[p])) for p, log in enumerate(self.logs)]

    def _partition(self, key: Key | None) -> int:
        if key is not None:
            return partition_of(key, self.partitions)
        self._turn += 1
        return self._turn % self.partitions


Channel: TypeAlias = QueueChannel | StreamChannel
