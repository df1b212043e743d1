"""Who owns a partition: an exclusive queue is its lock.

The broker gives an exclusive queue to one connection and deletes it with that connection: a lock
that nobody can hold beyond its life. Positions are committed over the same connection, so that an
owner which has lost its lock cannot commit any more.

RabbitMQ from 4.2 on keeps the queue while the node is down that it was on, and gives it to nobody
(rabbitmq-server#14573). It does not confirm messages to it, so it differs from one in use.
So there are several locks, and an owner has one of them while nobody has another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pika import exceptions
from pika.spec import Basic, BasicProperties

from gearshift_rabbitmq.confirms import confirmed
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.rpc import Rpc, ask

__all__ = ["release", "try_own"]

_LOCKED = 405

#: A lock whose node takes nothing for so long is one that a node has left behind. Seconds.
_LOCK_S = 5.0

# Nobody consumes from a lock, and what expires at once is not kept.
_PROBE = BasicProperties(expiration="0")


def try_own(connection: Connection, locks: Sequence[str]) -> str | None:
    """Take one of ``locks`` for this connection; None if another has one.

    The first that is not left behind by a node that is down.
    """
    for lock in locks:
        if _take(connection, lock):
            # Only now, so that of two that took different ones at once not both go on.
            if not _any_in_use(connection, [other for other in locks if other != lock]):
                return lock
            release(connection, lock)
            return None
        if _any_in_use(connection, [lock]):
            return None
    return None


def release(connection: Connection, lock: str) -> None:
    """Let go of ``lock``."""
    ask(connection, "queue_delete", queue=lock)


def _take(connection: Connection, lock: str) -> bool:
    try:
        ask(connection, "queue_declare", queue=lock, exclusive=True, auto_delete=True)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != _LOCKED:
            raise
        return False
    return True


def _any_in_use(connection: Connection, locks: Sequence[str]) -> bool:
    """True if one is there, and on a node that answers."""
    rpc = Rpc(connection)
    open_tags = set(range(1, len(locks) + 1))
    free: set[str] = set()
    left_behind: set[int] = set()

    def on_confirm(frame: Any) -> None:
        done = confirmed(frame.method, open_tags)
        open_tags.difference_update(done)
        if isinstance(frame.method, Basic.Nack):
            left_behind.update(done)

    rpc.channel.add_on_return_callback(lambda _, method, *__: free.add(method.routing_key))
    rpc("confirm_delivery", ack_nack_callback=on_confirm)
    for lock in locks:
        rpc.channel.basic_publish("", lock, b"", _PROBE, mandatory=True)
    if not rpc.done_within(lambda: not open_tags, _LOCK_S):
        if connection.blocked is not None:  # no node takes anything
            raise TimeoutError(f"no answer of a lock: {connection.blocked}")
        left_behind |= open_tags  # their nodes stand still
    rpc.close()
    return len(free) + len(left_behind) < len(locks)
