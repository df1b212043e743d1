"""Who owns a partition: an exclusive queue is its lock.

The broker gives an exclusive queue to one connection and deletes it with that connection: a lock
that nobody can hold beyond its life. Positions are committed over the same connection, so that an
owner which has lost its lock cannot commit any more.
"""

from __future__ import annotations

from pika import exceptions

from gearshift_rabbitmq.connection import Link, Rpc

__all__ = ["release", "try_own"]

_LOCKED = 405


def try_own(link: Link, lock: str) -> bool:
    """Take ``lock`` for this connection; False if another has it."""
    rpc = Rpc(link)
    try:
        rpc("queue_declare", queue=lock, exclusive=True, auto_delete=True)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != _LOCKED:
            raise
        return False
    rpc.close()
    return True


def release(link: Link, lock: str) -> None:
    """Let go of ``lock``."""
    rpc = Rpc(link)
    rpc("queue_delete", queue=lock)
    rpc.close()
