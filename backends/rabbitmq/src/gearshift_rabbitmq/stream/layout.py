"""Which exchange and queues a stream is, and making sure that they are so.

A stream ``orders`` with the group ``billing`` is, unless ``native`` adopts a queue:

==============================================  ==================================================
durable direct exchange ``orders``              where producers send, by number of partition
stream queues ``orders:0``, ``orders:1`` ...    the partitions, bound by their number
stream queue ``orders:groups``                  the names of the groups that have a position
quorum queues ``orders:0:billing`` ...          a group's position in a partition, see ``positions``
exclusive queues ``orders:0:billing:owner``     the lock of a partition's owner, see ``owners``,
``orders:0:billing:owner:1`` ...                and others for when a node is down
fanout exchange ``orders:billing:members``      where members tell that they are there
==============================================  ==================================================

``:`` is in no name of a channel or group, so nothing here can be called like a channel.

``orders:groups`` is declared last: where it is there, all the rest is. Several that declare a
stream at once, or one after another that died in between, so complete it together.
"""

from __future__ import annotations

import itertools
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pika import exceptions
from pika.spec import BasicProperties

from gearshift.driver import ChannelSpec
from gearshift.errors import ConfigError, TopologyConflict, UnknownChannel
from gearshift.message import Message, key_bytes
from gearshift_rabbitmq.confirms import Encode, Publication
from gearshift_rabbitmq.connection import RPC_TIMEOUT_S, Link, Rpc
from gearshift_rabbitmq.declaring import bind, declare_queue, placed
from gearshift_rabbitmq.errors import is_missing
from gearshift_rabbitmq.settings import RabbitChannel
from gearshift_rabbitmq.wire import properties_of

__all__ = [
    "DEFAULT_PARTITIONS",
    "Layout",
    "declare",
    "delete",
    "encoder",
    "group_names",
    "has_exchange",
    "lost",
    "present",
]

DEFAULT_PARTITIONS = 4

#: One more than the nodes that may be down at once in a cluster of seven.
_LOCKS = 4

#: A stream that was read to its end sends nothing more; so long is waited to be sure. Seconds.
_QUIET_S = 0.3


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of one stream. ``adopted``: its only partition is a queue that is not ours."""

    channel: str
    partitions: int
    adopted: str | None
    arguments: tuple[tuple[str, Any], ...]
    native: RabbitChannel | None = None

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
        return Layout(channel.name, count, None, tuple(arguments.items()), native)

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
        was_there = present(link, layout) and not lost(link, layout)
        rpc = Rpc(link)
        rpc("exchange_declare", exchange=layout.channel, exchange_type="direct", durable=True)
        rpc.close()
        for number in range(layout.partitions):
            queue = layout.partition(number)
            declare_queue(link, queue, placed(dict(layout.arguments), layout.native))
            bind(link, queue, layout.channel, str(number), was_there=was_there)
    declare_queue(link, layout.registry, placed({"x-queue-type": "stream"}, layout.native))


def lost(link: Link, layout: Layout) -> list[int]:
    """Partitions of ours that are not there although the stream once was complete."""
    if layout.adopted is not None or not _there(link, layout.registry):
        return []
    return [n for n in range(layout.partitions) if not _there(link, layout.partition(n))]


def present(link: Link, layout: Layout) -> bool:
    """Whether the stream is there. Creates nothing."""
    if layout.adopted is not None:
        return _there(link, layout.adopted)
    return has_exchange(link, layout.channel) and _there(link, layout.registry)


def has_exchange(link: Link, exchange: str) -> bool:
    """Whether the broker has it. Creates nothing."""
    return _found(link, "exchange_declare", exchange=exchange)


def delete(link: Link, layout: Layout) -> None:
    """Remove the stream with the positions of all its groups. Missing is fine."""
    groups = group_names(link, layout, complete=True)
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


def group_names(link: Link, layout: Layout, *, complete: bool = False) -> list[str]:
    """The groups that have ever had a position; what a slow broker sends late is missed.

    Not if ``complete``: then an empty message is written behind them, and read up to.
    """
    if not _there(link, layout.registry):
        return []
    found: dict[str, None] = {}
    is_complete = False
    end = uuid.uuid4().hex
    rpc = Rpc(link)

    def on_message(_: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
        nonlocal is_complete
        if body:
            found[body.decode(errors="replace")] = None
        is_complete = is_complete or properties.message_id == end
        rpc.channel.basic_ack(method.delivery_tag)

    rpc("basic_qos", prefetch_count=1000)
    if complete:
        rpc.channel.basic_publish("", layout.registry, b"", BasicProperties(message_id=end))
    rpc.consume(layout.registry, on_message, arguments={"x-stream-offset": "first"})
    if complete:
        link.wait(lambda: is_complete, RPC_TIMEOUT_S, "the names of the groups")
    seen = -1
    while not complete and len(found) > seen:
        seen = len(found)
        link.linger(_QUIET_S)
    rpc.close()
    return list(found)


def encoder(layout: Layout, user: str | None = None) -> Encode[Message]:
    """How messages become publications: a key's always go to one partition, others in turn."""
    turns: Iterator[int] = itertools.cycle(range(layout.partitions))
    keys = [str(number) for number in range(layout.partitions)]

    def encode(message: Message) -> Publication:
        properties = properties_of(message, key_in_header=True, arrays=False, user=user)
        body = message.body or b""
        if layout.adopted is not None:
            return Publication("", layout.adopted, properties, body)
        key = message.key
        number = next(turns) if key is None else zlib.crc32(key_bytes(key)) % layout.partitions
        return Publication(layout.channel, keys[number], properties, body)

    return encode


def _check_partitions(link: Link, layout: Layout) -> None:
    """The number of partitions cannot change: a key's messages would go elsewhere."""
    if not (present(link, layout) and _there(link, layout.partition(0))):
        return  # or it was deleted since, and is made again
    fewer = not _there(link, layout.partition(layout.partitions - 1))
    if fewer or _there(link, layout.partition(layout.partitions)):
        count = next(n for n in itertools.count(1) if not _there(link, layout.partition(n)))
        raise TopologyConflict(
            f"stream {layout.channel!r} has {count} partitions, wanted {layout.partitions}",
            hint=f"set partitions = {count}, or make another channel and move over",
        )


def _there(link: Link, queue: str) -> bool:
    return _found(link, "queue_declare", queue=queue)


def _found(link: Link, declare: str, **name: str) -> bool:
    try:
        rpc = Rpc(link)
        rpc(declare, passive=True, **name)
        rpc.close()
    except exceptions.ChannelClosedByBroker as error:
        if not is_missing(error):
            raise
        return False
    return True
