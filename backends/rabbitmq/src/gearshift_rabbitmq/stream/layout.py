"""Which exchange and queues a stream is, and making sure that they are so.

A stream ``orders`` with the group ``billing`` is, unless ``native`` adopts a queue:

==============================================  ==================================================
durable direct exchange ``orders``              where producers send, by number of partition
stream queues ``orders:0``, ``orders:1`` ...    the partitions, bound by their number
stream queue ``orders:groups``                  the names of the groups that have a position
quorum queues ``orders:0:billing`` ...          a group's position in a partition, see ``positions``
exclusive queues ``orders:0:billing:owner``     the lock of a partition's owner, see ``owners``
fanout exchange ``orders:billing:members``      where members tell that they are there
==============================================  ==================================================

``:`` is in no name of a channel or group, so nothing here can be called like a channel.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pika import exceptions

from gearshift.driver import ChannelSpec
from gearshift.errors import ConfigError, TopologyConflict, UnknownChannel
from gearshift.message import Message
from gearshift_rabbitmq.confirms import Encode, Publication
from gearshift_rabbitmq.connection import Link, Rpc
from gearshift_rabbitmq.errors import is_missing
from gearshift_rabbitmq.settings import RabbitChannel
from gearshift_rabbitmq.wire import properties_of

__all__ = ["DEFAULT_PARTITIONS", "Layout", "declare", "delete", "encoder", "group_names", "present"]

DEFAULT_PARTITIONS = 4

#: A stream that was read to its end sends nothing more; so long is waited to be sure. Seconds.
_QUIET_S = 0.3


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of one stream. ``adopted``: its only partition is a queue that is not ours."""

    channel: str
    partitions: int
    adopted: str | None
    arguments: tuple[tuple[str, Any], ...]

    @staticmethod
    def of(channel: ChannelSpec) -> Layout:
        """What ``channel`` and its native settings describe. No I/O. Raises ConfigError."""
        native: RabbitChannel = channel.native or RabbitChannel()
        if native.exchange is not None:
            raise ConfigError(
                f"native.exchange = {native.exchange!r}: a stream is read from a queue",
                hint="adopt a stream queue with native.queue",
                channel=channel.name,
            )
        if native.queue is not None:
            return Layout(channel.name, 1, native.queue, ())
        arguments: dict[str, Any] = {"x-queue-type": "stream"}
        if channel.retention_s is not None:
            arguments["x-max-age"] = f"{max(1, round(channel.retention_s))}s"
        if native.stream_max_bytes is not None:
            arguments["x-max-length-bytes"] = native.stream_max_bytes
        if native.stream_segment_bytes is not None:
            arguments["x-stream-max-segment-size-bytes"] = native.stream_segment_bytes
        count = channel.partitions or DEFAULT_PARTITIONS
        return Layout(channel.name, count, None, tuple(arguments.items()))

    def partition(self, number: int) -> str:
        """The stream queue of a partition."""
        return self.adopted or f"{self.channel}:{number}"

    def position(self, number: int, group: str) -> str:
        """The queue with a group's position in a partition."""
        return f"{self.channel}:{number}:{group}"

    def lock(self, number: int, group: str) -> str:
        """The queue that exists as long as a partition has an owner."""
        return f"{self.position(number, group)}:owner"

    def members(self, group: str) -> str:
        """The exchange of a group's members."""
        return f"{self.channel}:{group}:members"

    @property
    def registry(self) -> str:
        """The stream with the names of the groups."""
        return f"{self.channel}:groups"


def declare(link: Link, layout: Layout) -> None:
    """Create what is missing. Raises the broker's refusal, TopologyConflict, UnknownChannel."""
    if layout.adopted is not None:
        if not present(link, layout):
            raise UnknownChannel(f"queue {layout.adopted!r} does not exist")
    else:
        _check_partitions(link, layout)
        rpc = Rpc(link)
        rpc("exchange_declare", exchange=layout.channel, exchange_type="direct", durable=True)
        for number in range(layout.partitions):
            queue = layout.partition(number)
            rpc("queue_declare", queue=queue, durable=True, arguments=dict(layout.arguments))
            rpc("queue_bind", queue=queue, exchange=layout.channel, routing_key=str(number))
        rpc.close()
    rpc = Rpc(link)
    rpc("queue_declare", queue=layout.registry, durable=True, arguments={"x-queue-type": "stream"})
    rpc.close()


def present(link: Link, layout: Layout) -> bool:
    """Whether the stream is there. Creates nothing."""
    if layout.adopted is not None:
        return _there(link, layout.adopted)
    try:
        Rpc(link)("exchange_declare", exchange=layout.channel, passive=True)
    except exceptions.ChannelClosedByBroker as error:
        if not is_missing(error):
            raise
        return False
    return _there(link, layout.partition(0))


def delete(link: Link, layout: Layout) -> None:
    """Remove the stream with the positions of all its groups. Missing is fine."""
    groups = group_names(link, layout)
    rpc = Rpc(link)
    rpc("exchange_delete", exchange=layout.channel)
    for number in range(layout.partitions):
        rpc("queue_delete", queue=layout.partition(number))
        for group in groups:
            rpc("queue_delete", queue=layout.position(number, group))
    for group in groups:
        rpc("exchange_delete", exchange=layout.members(group))
    rpc("queue_delete", queue=layout.registry)
    rpc.close()


def group_names(link: Link, layout: Layout) -> list[str]:
    """The groups that have ever had a position."""
    if not _there(link, layout.registry):
        return []
    found: dict[str, None] = {}
    rpc = Rpc(link)

    def on_message(_: Any, method: Any, __: Any, body: bytes) -> None:
        found[body.decode(errors="replace")] = None
        rpc.channel.basic_ack(method.delivery_tag)

    rpc("basic_qos", prefetch_count=1000)
    rpc.consume(layout.registry, on_message, arguments={"x-stream-offset": "first"})
    seen = -1
    while len(found) > seen:
        seen = len(found)
        link.linger(_QUIET_S)
    rpc.close()
    return list(found)


def encoder(layout: Layout) -> Encode[Message]:
    """How messages become publications: a key's always go to one partition, others in turn."""
    turns: Iterator[int] = itertools.cycle(range(layout.partitions))
    keys = [str(number) for number in range(layout.partitions)]

    def encode(message: Message) -> Publication:
        properties = properties_of(message, key_in_header=True, arrays=False)
        body = message.body or b""
        if layout.adopted is not None:
            return Publication("", layout.adopted, properties, body)
        key = message.key
        number = next(turns) if key is None else zlib.crc32(key.encode()) % layout.partitions
        return Publication(layout.channel, keys[number], properties, body)

    return encode


def _check_partitions(link: Link, layout: Layout) -> None:
    """The number of partitions cannot change: a key's messages would go elsewhere."""
    if not present(link, layout):
        return
    fewer = not _there(link, layout.partition(layout.partitions - 1))
    if fewer or _there(link, layout.partition(layout.partitions)):
        count = next(n for n in itertools.count(1) if not _there(link, layout.partition(n)))
        raise TopologyConflict(
            f"stream {layout.channel!r} has {count} partitions, wanted {layout.partitions}",
            hint=f"set partitions = {count}, or make another channel and move over",
        )


def _there(link: Link, queue: str) -> bool:
    try:
        rpc = Rpc(link)
        rpc("queue_declare", queue=queue, passive=True)
        rpc.close()
    except exceptions.ChannelClosedByBroker as error:
        if not is_missing(error):
            raise
        return False
    return True
