"""Reading a stream queue from one end, beside its consumers."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from pika.spec import BasicProperties

from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.rpc import Rpc

__all__ = ["OFFSET", "beginning_of", "end_of", "scan", "wait_until_quiet"]

OFFSET = "x-stream-offset"

#: A stream that was read to its end sends nothing more; so long is waited to be sure. Seconds.
_QUIET_S = 0.3


def scan(
    connection: Connection, queue: str, where: str, *, prefetch: int
) -> tuple[Rpc, list[tuple[BasicProperties, bytes]]]:
    """Read ``queue`` from "first" or "last" until the Rpc is closed, into the list."""
    found: list[tuple[BasicProperties, bytes]] = []
    rpc = Rpc(connection)

    def on_message(_: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
        found.append((properties, body))
        rpc.channel.basic_ack(method.delivery_tag)

    rpc("basic_qos", prefetch_count=prefetch)
    rpc.consume(queue, on_message, arguments={OFFSET: where})
    return rpc, found


def wait_until_quiet(connection: Connection, found: Sized) -> None:
    """Serve the connection until nothing more comes."""
    seen = -1
    while len(found) > seen:
        seen = len(found)
        connection.serve(_QUIET_S)


def beginning_of(connection: Connection, queue: str) -> int:
    """The offset of the oldest message of ``queue``, which is not empty."""
    rpc, found = scan(connection, queue, "first", prefetch=1)
    rpc.wait(lambda: found, "the oldest message")
    rpc.close()
    return min(_offsets(found))


def end_of(connection: Connection, queue: str) -> int:
    """The offset that the next message of ``queue`` gets: one more than the last chunk's last."""
    rpc, found = scan(connection, queue, "last", prefetch=1000)
    wait_until_quiet(connection, found)
    rpc.close()
    return max(_offsets(found), default=-1) + 1


def _offsets(found: list[tuple[BasicProperties, bytes]]) -> list[int]:
    return [int((properties.headers or {})[OFFSET]) for properties, _ in found]
