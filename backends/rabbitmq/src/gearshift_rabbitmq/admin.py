"""The admin driver: topology and its state, as far as AMQP shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from gearshift.capabilities import Capabilities
from gearshift.driver import AdminDriver, ChannelSpec, Condition, GroupStatus
from gearshift.message import Semantics
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.queue.topology import QueueTopology
from gearshift_rabbitmq.replication import conditions
from gearshift_rabbitmq.settings import Settings
from gearshift_rabbitmq.stream.topology import StreamTopology

__all__ = ["Admin"]

#: A connection that was not served for this share of its heartbeat is replaced.
_FRESH = 0.4

#: Default of max_message_size before 4.0. Bytes.
_LARGEST_BEFORE_4 = 128 * 1024 * 1024


class Admin(AdminDriver):
    """Keeps its connection between calls that follow one another quickly only:
    nobody answers heartbeats between calls, and a thread for that would idle all day."""

    def __init__(self, connect: Callable[[], Connection], settings: Settings) -> None:
        """Connect once, so that an unreachable broker is known at once."""
        self._connect = connect
        self._settings = settings
        self._fresh_s = settings.heartbeat_s * _FRESH
        self._connection: Connection | None = connect()
        self._used_at = time.monotonic()

    def server(self) -> str:
        return " ".join(self._server())

    def capabilities(self, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        product, version = self._server()
        if product == "RabbitMQ" and version.startswith("3."):
            return replace(declared, max_message_bytes=_LARGEST_BEFORE_4)
        return declared

    def exists(self, channel: ChannelSpec) -> bool:
        return self._topology(channel).is_there()

    def declare(self, channel: ChannelSpec) -> None:
        self._topology(channel).declare()

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        return self._topology(channel).groups()

    def replication(self, channels: Sequence[ChannelSpec]) -> Sequence[Condition]:
        return conditions(self._settings, channels)

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        return QueueTopology(self._connected(), channel).purge(group)

    def delete(self, channel: ChannelSpec) -> None:
        self._topology(channel).delete()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(1.0)

    def _topology(self, channel: ChannelSpec) -> QueueTopology | StreamTopology:
        is_stream = channel.semantics is Semantics.STREAM
        return (StreamTopology if is_stream else QueueTopology)(self._connected(), channel)

    def _server(self) -> tuple[str, str]:
        """Product and version."""
        connection = self._connected()
        return connection.server("product"), connection.server("version")

    def _connected(self) -> Connection:
        connection = self._connection
        stale = time.monotonic() - self._used_at > self._fresh_s
        if connection is None or connection.error is not None or stale:
            if connection is not None:
                connection.close(0.2)
            connection = self._connection = self._connect()
        self._used_at = time.monotonic()
        return connection
