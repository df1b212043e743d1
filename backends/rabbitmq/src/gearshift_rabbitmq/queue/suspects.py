"""Suspects on RabbitMQ: what was lost with a consumer waits in a queue of its own.

A message that the broker pushes lies in the buffer of its consumer with many others, and when the
consumer is gone all of them have been delivered once more; before RabbitMQ 4.3 that is so after an
orderly close too. So what comes back is stored, in order, in ``<queue>:suspects``, and taken from
there one by one, with ``basic.get``, while this consumer holds nothing and is not subscribed. What
the broker counts there is one message's own.

An adopted queue has none beside it: there a suspect is stored again at the queue's own end.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable
from typing import Any

from pika.spec import Basic

from gearshift.driver import Received
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.rpc import find

__all__ = ["Suspects"]

#: How often a consumer asks whether others have left suspects. Seconds.
_LOOK_EVERY_S = 60.0


class Suspects:
    """Those of one consumer's queue. On the consumer's thread.

    ``active`` while there may be some; ``on_end`` is called when there are no more. ``receive``
    makes a Received of what has come, ``store`` stores one among them.
    """

    def __init__(
        self,
        connection: Connection,
        channel: Any,
        queue: str,
        *,
        is_ours: bool,
        receive: Callable[..., Received],
        store: Callable[[Received], None],
        on_end: Callable[[], None],
    ) -> None:
        self.active = False
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._is_ours = is_ours
        self._receive = receive
        self._store = store
        self._on_end = on_end
        self._asked = False
        self._got: Received | None = None
        self._kept: list[Received] = []  # could not be stored, in the order in which they came
        self._is_unsure = False  # if the queue is there
        self._look_at = 0.0
        channel.add_callback(self._on_empty, [Basic.GetEmpty], one_shot=False)

    def look(self) -> bool:
        """Ask the broker from time to time. Blocks for an answer; True if there are some."""
        if self._is_ours and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY_S
            return self._has_any()
        return False

    def fetch(self) -> Received | None:
        """The next one if it has come, else have it come."""
        if self._kept:
            return self._kept.pop(0)
        if self._is_unsure:
            # Whoever may not store there may have found no queue, and asking for its first message
            # would close the AMQP channel.
            self._is_unsure = False
            if not self._has_any():
                self._end()
                return None
        if self._got is None and not self._asked:
            self._asked = True
            self._channel.basic_get(self._queue, self._on_got)
        got, self._got = self._got, None
        if got is not None and not got.lost:  # in an adopted queue, which holds others too
            self._end()
        return got

    def keep(self, one: Received) -> None:
        """Have ``one`` taken from here, alone like the others: it could not be stored."""
        insort(self._kept, one, key=lambda kept: kept.token.tag)
        self._is_unsure = True

    def left(self) -> Received | None:
        """What was fetched and nobody took, at the end."""
        got, self._got = self._got, None
        return got

    def _has_any(self) -> bool:
        found = find(self._connection, "queue", self._queue)
        return found is not None and found.message_count > 0

    def _on_got(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self._asked = False
        one = self._receive(method, properties, body)
        if one.lost > one.token.lost:  # since it was stored: another stores the higher number
            self._store(one)
        else:
            self._got = one

    def _on_empty(self, _: Any) -> None:
        self._asked = False
        self._end()

    def _end(self) -> None:
        self.active = False
        self._on_end()
