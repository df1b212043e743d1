"""The AdminDriver of the memory backend."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from gearshift.driver import AdminDriver, ChannelSpec, GroupStatus
from gearshift.embedded.declared import missing, require_partitions, require_same
from gearshift.embedded.memory.channel import Channel, Clock, QueueChannel, StreamChannel
from gearshift.embedded.memory.group import Group
from gearshift.embedded.memory.stream import rebalance
from gearshift.errors import UnknownGroup
from gearshift.message import Semantics

__all__ = ["Admin", "Channels"]


class Channels:
    """The channels of one Backend by name. Any thread; ``_lock`` guards the dictionary."""

    def __init__(self, max_messages: int, clock: Clock, uptime: Clock) -> None:
        self._max_messages = max_messages
        self._clock = clock
        self._uptime = uptime
        self._lock = threading.Lock()
        self._by_name: dict[str, Channel] = {}

    def find(self, name: str) -> Channel | None:
        """The channel, if it was declared."""
        return self._by_name.get(name)

    def get(self, spec: ChannelSpec) -> Channel:
        """The channel that ``spec`` means, or UnknownChannel or TopologyConflict."""
        channel = self._by_name.get(spec.name)
        if channel is None:
            raise missing(spec)
        require_same(spec, channel.semantics)
        return channel

    def make(self, spec: ChannelSpec) -> Channel:
        """The channel, new if there was none."""
        with self._lock:
            if spec.name not in self._by_name:
                self._by_name[spec.name] = (
                    QueueChannel(spec, self._max_messages, self._uptime)
                    if spec.semantics is Semantics.QUEUE
                    else StreamChannel(spec, self._max_messages, self._clock)
                )
            return self.get(spec)

    def remove(self, name: str) -> Channel | None:
        """Forget the channel and return it."""
        with self._lock:
            return self._by_name.pop(name, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._by_name.clear()


class Admin(AdminDriver):
    """Declares and describes the channels of one Backend."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def server(self) -> str:
        return "memory (this process)"

    def exists(self, channel: ChannelSpec) -> bool:
        return self._channels.find(channel.name) is not None

    def declare(self, channel: ChannelSpec) -> None:
        found = self._channels.make(channel)
        if isinstance(found, StreamChannel):
            require_partitions(channel, found.partitions)
        else:
            with found.changed:
                for group in channel.groups:
                    found.groups.setdefault(group, Group())

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        found = self._channels.get(channel)
        with found.changed:
            names = dict.fromkeys((*channel.groups, *found.groups))
            if isinstance(found, QueueChannel):
                return [_queue_status(found, name) for name in names]
            return [_stream_status(found, name) for name in names]

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        found = self._channels.get(channel)
        with found.changed:
            if group not in found.groups:
                raise UnknownGroup(f"channel {channel.name!r} has no group {group!r}")
            if isinstance(found, QueueChannel):
                return _purge_queue(found, group)
            return _purge_stream(found, group)

    def delete(self, channel: ChannelSpec) -> None:
        found = self._channels.remove(channel.name)
        if found is not None:
            with found.changed:
                found.deleted = True
                found.groups.clear()
                found.announce()


def _queue_status(channel: QueueChannel, name: str) -> GroupStatus:
    group = channel.groups.get(name)
    if group is None:
        return GroupStatus(group=name)
    in_flight = sum(len(hand.held) for hand in group.hands)
    oldest = next(iter(group.entries.values()), None)
    return GroupStatus(
        group=name,
        ready=len(group.entries) - in_flight,
        in_flight=in_flight,
        oldest_age_s=None if oldest is None else max(0.0, channel.now() - oldest.shared.at),
        consumers=len(group.hands),
    )


def _stream_status(channel: StreamChannel, name: str) -> GroupStatus:
    group = channel.groups.get(name)
    if group is None:
        return GroupStatus(group=name)
    channel.expire()
    lag, oldest_ms = 0, None
    for log, offset in zip(channel.logs, _offsets(channel, name), strict=True):
        behind = log.bounds.next - offset
        lag += behind
        if behind:
            at_ms = log.at(offset)
            oldest_ms = at_ms if oldest_ms is None else min(oldest_ms, at_ms)
    return GroupStatus(
        group=name,
        lag=lag,
        oldest_age_s=None if oldest_ms is None else max(0.0, channel.now() - oldest_ms / 1000),
        consumers=len(group.members),
    )


def _offsets(channel: StreamChannel, group: str) -> list[int]:
    """The group's positions, in order of partitions, within what can be read."""
    positions = channel.groups[group].positions
    return [log.bounds.clamp(positions[p]) for p, log in enumerate(channel.logs)]


def _purge_queue(channel: QueueChannel, name: str) -> int:
    gone = channel.groups[name].purge()
    for shared in gone:
        channel.settled(shared)
    channel.announce()
    return len(gone)


def _purge_stream(channel: StreamChannel, name: str) -> int:
    """Move the group to the end. Its members lose their partitions and take them there again."""
    group = channel.groups[name]
    behind = sum(
        log.bounds.next - offset
        for log, offset in zip(channel.logs, _offsets(channel, name), strict=True)
    )
    group.positions = {p: log.bounds.next for p, log in enumerate(channel.logs)}
    group.owner = {}
    rebalance(channel, group)
    return behind
