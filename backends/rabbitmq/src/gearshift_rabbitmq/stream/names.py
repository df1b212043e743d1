"""The names of a stream channel's exchanges and queues on the broker.

A stream ``orders`` with the group ``billing`` is, unless ``native`` adopts a queue:

==============================================  ==================================================
durable direct exchange ``orders``              where producers send, by number of partition
stream queues ``orders:0``, ``orders:1`` ...    the partitions, bound by their number
stream queue ``orders:groups``                  the names of the groups that have a position
quorum queues ``orders:0:billing`` ...          a group's position in a partition, see ``positions``
exclusive queues ``orders:0:billing:owner``     the lock of a partition's owner, see ``owners``,
``orders:0:billing:owner:1`` ...                and others for when a node is down
fanout exchange ``orders:partitions=2``         how many partitions it was made with
fanout exchange ``orders:billing:members``      where members announce themselves, see ``members``
==============================================  ==================================================

``:`` is in no name of a channel or group, so nothing here can be called like a channel.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass
from typing import Any

from gearshift.driver import ChannelSpec
from gearshift.errors import ConfigError
from gearshift.message import Message, key_bytes
from gearshift_rabbitmq.confirms import Encode
from gearshift_rabbitmq.settings import ChannelSettings
from gearshift_rabbitmq.wire.encoding import properties_of
from gearshift_rabbitmq.wire.publishing import Publication

__all__ = ["StreamNames"]

_DEFAULT_PARTITIONS = 4

#: One more than the nodes that may be down at once in a cluster of seven.
_LOCKS = 4


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The names of one stream. ``adopted``: its only partition is a queue that is not ours.

    ``arguments`` are those of the partitions' queues.
    """

    channel: str
    partitions: int
    adopted: str | None
    arguments: tuple[tuple[str, Any], ...]
    native: ChannelSettings | None = None

    @staticmethod
    def of(channel: ChannelSpec) -> StreamNames:
        """What ``channel`` and its native settings describe. Raises ConfigError."""
        native: ChannelSettings = channel.native or ChannelSettings()
        if native.exchange is not None:
            raise ConfigError(
                f"native.exchange = {native.exchange!r}: a stream is read from a queue",
                hint="adopt a stream queue with native.queue",
                channel=channel.name,
            )
        if native.queue is not None:
            return StreamNames(channel.name, 1, native.queue, ())
        arguments: dict[str, Any] = {"x-queue-type": "stream"}
        if channel.retention_s is not None:
            arguments["x-max-age"] = f"{max(1, round(channel.retention_s))}s"
        if native.stream_max_bytes is not None:
            arguments["x-max-length-bytes"] = native.stream_max_bytes
        if native.stream_segment_bytes is not None:
            arguments["x-stream-max-segment-size-bytes"] = native.stream_segment_bytes
        count = channel.partitions or _DEFAULT_PARTITIONS
        return StreamNames(channel.name, count, None, tuple(arguments.items()), native)

    def partition(self, number: int) -> str:
        """The stream queue of a partition."""
        return self.adopted or f"{self.channel}:{number}"

    def position(self, number: int, group: str) -> str:
        """The queue with a group's position in a partition."""
        return f"{self.channel}:{number}:{group}"

    def locks(self, number: int, group: str) -> list[str]:
        """Queues of which one exists as long as a partition has an owner: see ``owners``."""
        first = f"{self.position(number, group)}:owner"
        return [first, *(f"{first}:{further}" for further in range(1, _LOCKS))]

    def members(self, group: str) -> str:
        """The exchange of a group's members."""
        return f"{self.channel}:{group}:members"

    @property
    def missing(self) -> str:
        """What is gone if no queue takes a message."""
        if self.adopted is not None:
            return f"queue {self.adopted!r} does not exist"
        return f"a partition of stream {self.channel!r} is gone"

    @property
    def count(self) -> str:
        """The exchange that only says how many partitions the stream was made with."""
        return f"{self.channel}:partitions={self.partitions}"

    @property
    def registry(self) -> str:
        """The stream with the names of the groups."""
        return f"{self.channel}:groups"

    def encoder(self, user: str | None = None) -> Encode:
        """How messages become publications: a key's always go to one partition, others in turn."""
        turns = itertools.cycle(range(self.partitions))
        keys = [str(number) for number in range(self.partitions)]

        def encode(message: Message) -> Publication:
            properties = properties_of(message, key_in_header=True, arrays=False, user=user)
            body = message.body or b""
            if self.adopted is not None:
                return Publication("", self.adopted, message.id, properties, body)
            key = message.key
            number = next(turns) if key is None else zlib.crc32(key_bytes(key)) % self.partitions
            return Publication(self.channel, keys[number], message.id, properties, body)

        return encode
