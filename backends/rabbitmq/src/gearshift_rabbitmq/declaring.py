"""Declaring queues and bindings that may be there already."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pika import exceptions

from gearshift.errors import NotSupported
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.errors import differing_argument
from gearshift_rabbitmq.rpc import Rpc, ask
from gearshift_rabbitmq.settings import ChannelSettings

__all__ = ["bind", "declare_queue", "not_ours", "placed"]

logger = logging.getLogger("gearshift.rabbitmq")

#: The argument for how many nodes have a copy, by type of queue.
_REPLICAS = {"quorum": "x-quorum-initial-group-size", "stream": "x-initial-cluster-size"}
_LEADER = "x-queue-leader-locator"

#: Where a queue was placed when it was made, which says nothing of where it is now.
_PLACEMENT = frozenset((*_REPLICAS.values(), _LEADER))

#: How long a binding that should be there is waited for. Seconds.
_BIND_S = 2.0


def bind(
    connection: Connection, queue: str, exchange: str, routing_key: str, *, was_there: bool
) -> None:
    """Bind ``queue``; ``was_there`` says that it was complete before this declaration.

    Then a broker that does not answer is not waited for: RabbitMQ 3.x answers nobody who binds,
    even if the binding exists, until its cluster has noticed that a node does not answer
    (``net_ticktime``, a minute). Until then no binding can have been removed either.
    """
    rpc = Rpc(connection)
    arguments = {"queue": queue, "exchange": exchange, "routing_key": routing_key}
    if not was_there:
        rpc("queue_bind", **arguments)
    elif not rpc.answers_in(_BIND_S, "queue_bind", **arguments):
        logger.info("the broker does not answer whether %r is bound, as it should be", queue)
        return  # the AMQP channel still waits
    rpc.close()


def placed(arguments: Mapping[str, Any], native: ChannelSettings | None) -> dict[str, Any]:
    """``arguments`` of a quorum queue or stream, and those for its copies and its leader."""
    native = native or ChannelSettings()
    found = {**arguments, _LEADER: native.leader_locator}
    if native.replicas is not None:
        found[_REPLICAS[arguments["x-queue-type"]]] = native.replicas
    return found


def declare_queue(connection: Connection, queue: str, arguments: Mapping[str, Any]) -> None:
    """Create ``queue`` if it is not there; one that was placed otherwise is as good.

    Raises ChannelClosedByBroker if it differs in anything else.
    """
    wanted = dict(arguments)
    while True:
        try:
            ask(connection, "queue_declare", queue=queue, durable=True, arguments=wanted)
        except exceptions.ChannelClosedByBroker as error:
            name, value = differing_argument(error) or ("", None)
            if name not in _PLACEMENT or wanted.get(name) == value:
                raise
            wanted = {key: wanted[key] for key in wanted.keys() - {name}}
            if value is not None:
                wanted[name] = value
        else:
            return


def not_ours(channel: str, name: str) -> NotSupported:
    """The error for deleting what a channel adopts."""
    return NotSupported(
        f"channel {channel!r} adopts {name!r}, which is not ours to delete",
        hint="delete it with the broker's own tools",
    )
