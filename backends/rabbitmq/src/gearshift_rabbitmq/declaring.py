"""Declaring queues and bindings that may be there already."""

from __future__ import annotations

import logging

from gearshift_rabbitmq.connection import Link, Rpc

__all__ = ["bind"]

logger = logging.getLogger("gearshift.rabbitmq")

#: How long a binding that should be there is waited for. Seconds.
_BIND_S = 2.0


def bind(link: Link, queue: str, exchange: str, routing_key: str, *, was_there: bool) -> None:
    """Bind ``queue``; ``was_there`` says that it was complete before this declaration.

    Then a broker that does not answer is not waited for: RabbitMQ 3.x answers nobody who binds,
    even if the binding exists, until its cluster has noticed that a node does not answer
    (``net_ticktime``, a minute). Until then no binding can have been removed either.
    """
    rpc = Rpc(link)
    arguments = {"queue": queue, "exchange": exchange, "routing_key": routing_key}
    if not was_there:
        rpc("queue_bind", **arguments)
    elif not rpc.answers_in(_BIND_S, "queue_bind", **arguments):
        logger.info("the broker does not answer whether %r is bound, as it should be", queue)
        return  # the AMQP channel still waits
    rpc.close()
