"""Who owns a partition: an exclusive queue is its lock.

The broker gives an exclusive queue to one connection and deletes it with that connection: a lock
that nobody can hold beyond its life. Positions are committed over the same connection, so that an
owner which has lost its lock cannot commit any more.

RabbitMQ from 4.2 on keeps the queue while the node is down that it was on, and gives it to nobody
(rabbitmq-server#14573). It does not confirm messages to it, which tells it from one that is in use.
So there are several locks, and an owner has one of them while nobody has another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pika import exceptions
from pika.spec import Basic, BasicProperties

from gearshift_rabbitmq.connection import Link, Rpc

__all__ = ["release", "try_own"]

_LOCKED = 405

# Nobody consumes from a lock, and what expires at once is not kept.
_PROBE = BasicProperties(expiration="0")


def try_own(link: Link, locks: Sequence[str]) -> str | None:
    """Take one of ``locks`` for this connection; None if another has one.

    The first that is not left behind by a node that is down.
    """
    for lock in locks:
        if _take(link, lock):
            # Only now, so that of two that took different ones at once not both go on.
            if not _any_in_use(link, [other for other in locks if other != lock]):
                return lock
            release(link, lock)
            return None
        if _any_in_use(link, [lock]):
            return None
    return None


def release(link: Link, lock: str) -> None:
    """Let go of ``lock``."""
    rpc = Rpc(link)
    rpc("queue_delete", queue=lock)
    rpc.close()


def _take(link: Link, lock: str) -> bool:
    rpc = Rpc(link)
    try:
        rpc("queue_declare", queue=lock, exclusive=True, auto_delete=True)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != _LOCKED:
            raise
        return False
    rpc.close()
    return True


def _any_in_use(link: Link, locks: Sequence[str]) -> bool:
    """True if one is there, and on a node that answers."""
    rpc = Rpc(link)
    open_tags = set(range(1, len(locks) + 1))
    free: set[str] = set()
    left_behind: set[int] = set()

    def on_confirm(frame: Any) -> None:
        tag = frame.method.delivery_tag
        done = {each for each in open_tags if each <= tag} if frame.method.multiple else {tag}
        open_tags.difference_update(done)
        if isinstance(frame.method, Basic.Nack):
            left_behind.update(done)

    rpc.channel.add_on_return_callback(lambda _, method, *__: free.add(method.routing_key))
    rpc("confirm_delivery", ack_nack_callback=on_confirm)
    for lock in locks:
        rpc.channel.basic_publish("", lock, b"", _PROBE, mandatory=True)
    try:
        rpc.wait(lambda: not open_tags, "a lock")
    except TimeoutError:  # the node of a lock is frozen, or no node takes anything
        if link.blocked is not None:
            raise
        left_behind |= open_tags
    rpc.close()
    return len(free) + len(left_behind) < len(locks)
