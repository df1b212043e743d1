"""The admin driver: topology and its state, as far as AMQP tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pika import exceptions

from gearshift.capabilities import Capabilities
from gearshift.driver import ChannelSpec, Condition, GroupStatus
from gearshift.errors import NotSupported
from gearshift.message import Semantics
from gearshift_rabbitmq import topology as topo
from gearshift_rabbitmq.connection import Link, Rpc
from gearshift_rabbitmq.delay import delay_queues
from gearshift_rabbitmq.errors import is_missing
from gearshift_rabbitmq.replication import conditions
from gearshift_rabbitmq.settings import RabbitSettings
from gearshift_rabbitmq.stream import layout as stream
from gearshift_rabbitmq.stream.layout import Layout
from gearshift_rabbitmq.stream.positions import Positions
from gearshift_rabbitmq.topology import Topology

__all__ = ["Admin"]

#: A connection unserved for longer than this may have missed heartbeats, so it is replaced.
_FRESH_S = 0.4


#: Default of max_message_size in 3.x. Bytes.
_LARGEST_BEFORE_4 = 128 * 1024 * 1024


class Admin:
    """An AdminDriver. Keeps its connection between calls that follow one another quickly only:
    nobody answers heartbeats between calls, and a thread for that would idle all day."""

    def __init__(self, connect: Callable[[], Link], settings: RabbitSettings) -> None:
        """Connect once, so that an unreachable broker is known at once."""
        self._connect = connect
        self._settings = settings
        self._fresh_s = settings.heartbeat_s * _FRESH_S
        self._link: Link | None = connect()
        self._used_at = time.monotonic()

    def server(self) -> str:
        """Product and version as the server told when it was connected to."""
        return " ".join(self._server())

    def capabilities(self, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        """See AdminDriver. Releases before 4.0 take larger messages."""
        product, version = self._server()
        if product == "RabbitMQ" and version.startswith("3."):
            return replace(declared, max_message_bytes=_LARGEST_BEFORE_4)
        return declared

    def exists(self, channel: ChannelSpec) -> bool:
        """Whether the exchange (and an adopted queue) is there. Creates nothing."""
        if channel.semantics is Semantics.STREAM:
            return stream.present(self._connected(), Layout.of(channel))
        return topo.present(self._connected(), Topology.of(channel))

    def declare(self, channel: ChannelSpec) -> None:
        """See AdminDriver."""
        if channel.semantics is Semantics.STREAM:
            _declare_stream(self._connected(), Layout.of(channel))
        else:
            topo.declare(self._connected(), Topology.of(channel), channel.groups)

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        """State of ``channel.groups``: AMQP cannot list others, nor tell what is in flight."""
        link = self._connected()
        if channel.semantics is Semantics.STREAM:
            names = dict.fromkeys([*channel.groups, *stream.group_names(link, Layout.of(channel))])
            return [GroupStatus(group=name) for name in names]
        topology = Topology.of(channel)
        return [self._status(link, topology, group) for group in channel.groups]

    def replication(self, channels: Sequence[ChannelSpec]) -> Sequence[Condition]:
        """See AdminDriver. Over connections to each node in the settings."""
        return conditions(self._settings, channels)

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        """Throw away what is ready; what is handed out or waits for a delayed retry stays."""
        link = self._connected()
        topology = Topology.of(channel)
        queues = {topology.queue(group), topology.suspects(group)}
        return sum(_purged(link, queue) for queue in queues if topo.waiting(link, queue))

    def delete(self, channel: ChannelSpec) -> None:
        """Remove exchange, the queues of ``channel.groups`` and their helpers. Missing is fine."""
        if channel.semantics is Semantics.STREAM:
            self._delete_stream(Layout.of(channel))
            return
        topology = Topology.of(channel)
        if topology.adopted_queue is not None or not topology.exchange_is_ours:
            name = topology.adopted_queue or topology.exchange
            raise _not_ours(channel.name, name)
        rpc = Rpc(self._connected())
        rpc("exchange_delete", exchange=topology.exchange)
        for group in channel.groups:
            queue = topology.queue(group)
            helpers = (topo.undeliverable(queue), topo.suspects(queue), *delay_queues(queue))
            for name in (queue, *helpers):
                rpc("queue_delete", queue=name)
        rpc.close()

    def close(self) -> None:
        """See AdminDriver."""
        link, self._link = self._link, None
        if link is not None:
            link.close(1.0)

    def _server(self) -> tuple[str, str]:
        """Product and version."""
        told = self._connected().connection.server_properties or {}
        return _text(told.get("product", "RabbitMQ")), _text(told.get("version", "?"))

    def _delete_stream(self, layout: Layout) -> None:
        if layout.adopted is not None:
            raise _not_ours(layout.channel, layout.adopted)
        stream.delete(self._connected(), layout)

    def _status(self, link: Link, topology: Topology, group: str) -> GroupStatus:
        try:
            answer = Rpc(link)("queue_declare", queue=topology.queue(group), passive=True)
        except exceptions.ChannelClosedByBroker as error:
            if not is_missing(error):
                raise
            return GroupStatus(group=group)
        return GroupStatus(
            group=group, ready=int(answer.message_count), consumers=int(answer.consumer_count)
        )

    def _connected(self) -> Link:
        link = self._link
        stale = time.monotonic() - self._used_at > self._fresh_s
        if link is None or link.error is not None or stale:
            if link is not None:
                link.close(0.2)
            link = self._link = self._connect()
        self._used_at = time.monotonic()
        return link


def _declare_stream(link: Link, layout: Layout) -> None:
    if lost := stream.lost(link, layout):
        # Nothing may be in a partition that is made anew before groups begin again in it: what
        # lies below a position is never read.
        for group in stream.group_names(link, layout, complete=True):
            positions = Positions(link, layout, group)
            for partition in lost:
                positions.restart(partition)
    stream.declare(link, layout)


def _purged(link: Link, queue: str) -> int:
    return int(Rpc(link)("queue_purge", queue=queue).message_count)


def _not_ours(channel: str, name: str) -> NotSupported:
    return NotSupported(
        f"channel {channel!r} adopts {name!r}, which is not ours to delete",
        hint="delete it with the broker's own tools",
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
