"""Messages that the broker gave up on, which no consumer is given: told, or nobody would know."""

from __future__ import annotations

import logging
import time

from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.queue.names import undeliverable
from gearshift_rabbitmq.rpc import find

__all__ = ["GivenUp", "given_up", "told"]

logger = logging.getLogger("gearshift.rabbitmq.consumer")

#: How often a consumer asks. Seconds.
_LOOK_EVERY_S = 60.0

_CAUSE = "by their expiration, or by a policy's message-ttl or delivery-limit"


def told(count: int) -> str:
    """The sentence for so many."""
    messages = "1 message" if count == 1 else f"{count} messages"
    return f"the broker has given up on {messages}, which no consumer gets, {_CAUSE}"


def given_up(connection: Connection, queue: str) -> int:
    """How many messages of ``queue`` the broker has put aside. Blocks for an answer."""
    found = find(connection, "queue", undeliverable(queue))
    return 0 if found is None else int(found.message_count)


class GivenUp:
    """Logs them when there are more than before. On the thread that drives ``connection``."""

    def __init__(self, connection: Connection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._known = 0
        self._look_at = 0.0

    def look(self) -> None:
        """Ask the broker from time to time. Blocks for an answer."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        before, self._known = self._known, given_up(self._connection, self._queue)
        if self._known > before:
            logger.warning(
                "queue %r: %s; they lie in queue %r",
                self._queue,
                told(self._known),
                undeliverable(self._queue),
            )
