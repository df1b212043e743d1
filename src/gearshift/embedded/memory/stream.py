"""A member of a group of a memory stream: the StreamMember behind ``StreamConsumer``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gearshift.driver import ConsumerSpec, Place
from gearshift.embedded.memory.channel import StreamChannel, StreamGroup
from gearshift.embedded.stream import Bounds, Ownership, StreamMember
from gearshift.errors import Closed
from gearshift.message import Message

__all__ = ["Member"]


class Member(StreamMember):
    """See StreamMember. An ephemeral reader is the only member of a group that nobody else sees."""

    def __init__(self, channel: StreamChannel, spec: ConsumerSpec) -> None:
        self._channel = channel
        self._spec = spec
        self._group: StreamGroup | None = None
        self._seen = -1
        self._woken = False
        self._closed = False

    def join(self) -> None:
        channel, spec = self._channel, self._spec
        with channel.changed:
            channel.require()
            fresh = StreamGroup()
            group = fresh if spec.ephemeral else channel.groups.setdefault(spec.group, fresh)
            if not group.positions:
                group.positions = {
                    p: self.beginning(spec.start, p) for p in range(channel.partitions)
                }
            self._group = group
            group.members.append(self)
            channel.rebalance(group)

    def ownership(self) -> Ownership | None:
        with self._channel.changed:
            if self._closed:
                raise Closed("this consumer is closed")
            self._channel.require()
            self._seen = self._channel.version
            group = self._require_group()
            owned = frozenset(p for p, member in group.owner.items() if member is self)
            wanted = frozenset(p for p, member in group.wanted.items() if member is self)
            return Ownership(owned, wanted, wanted - group.owner.keys())

    def take(self, partitions: Collection[int]) -> Mapping[int, Place]:
        with self._channel.changed:
            group = self._require_group()
            taken = [p for p in partitions if group.wanted.get(p) is self and p not in group.owner]
            group.owner.update(dict.fromkeys(taken, self))
            ends = {p: self._channel.logs[p].bounds.next for p in taken}
            return {p: Place(min(group.positions[p], ends[p])) for p in taken}

    def release(self, partitions: Collection[int], positions: Mapping[int, Place]) -> None:
        with self._channel.changed:
            self.commit(positions)
            owner = self._require_group().owner
            for partition in partitions:
                if owner.get(partition) is self:
                    del owner[partition]
            self._channel.announce()

    def commit(self, positions: Mapping[int, Place]) -> None:
        with self._channel.changed:
            group = self._require_group()
            for partition, offset in positions.items():
                if group.owner.get(partition) is self:
                    group.positions[partition] = offset

    def read(self, partition: int, offset: int, limit: int) -> Sequence[tuple[int, Message]]:
        with self._channel.changed:
            self._channel.expire()
            return self._channel.logs[partition].read(offset, limit)

    def bounds(self, partition: int) -> Bounds:
        with self._channel.changed:
            return self._channel.logs[partition].bounds

    def since(self, partition: int, time_ms: int) -> int:
        with self._channel.changed:
            return self._channel.logs[partition].since(time_ms)

    def wait(self, timeout_s: float) -> bool:
        with self._channel.changed:
            changed = self._channel.changed
            changed.wait_for(lambda: self._woken or self._seen != self._channel.version, timeout_s)
            woken, self._woken = self._woken, False
            return woken

    def wake(self) -> None:
        with self._channel.changed:
            self._woken = True
            self._channel.changed.notify_all()

    def close(self) -> None:
        with self._channel.changed:
            if self._closed:
                return
            self._closed = True
            group = self._group
            if group is not None and self in group.members:
                group.members.remove(self)
                self._channel.rebalance(group)

    def _require_group(self) -> StreamGroup:
        assert self._group is not None, "join comes first"
        return self._group
