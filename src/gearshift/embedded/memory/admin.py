"""The AdminDriver of the memory backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from gearshift.driver import AdminDriver, ChannelSpec, GroupStatus
from gearshift.embedded.capabilities import missing, require_partitions, require_same
from gearshift.embedded.memory.channel import Channel, Clock, QueueChannel, StreamChannel
from gearshift.embedded.memory.group import Group
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

    def __iter__(self) -> Iterator[Channel]:
        """Iterate over those that there are now."""
        with self._lock:
            return iter(list(self._by_name.values()))

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
            return [found.status(name) for name in names]

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        found = self._channels.get(channel)
        with found.changed:
            if group not in found.groups:
                raise UnknownGroup(f"channel {channel.name!r} has no group {group!r}")
            return found.purge(group)

    def delete(self, channel: ChannelSpec) -> None:
        found = self._channels.remove(channel.name)
        if found is not None:
            with found.changed:
                found.deleted = True
                found.groups.clear()
                found.announce()
