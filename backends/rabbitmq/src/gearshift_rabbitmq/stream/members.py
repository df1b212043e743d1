"""Who else is in the group: members announce themselves to one another every second.

This decides who *should* have which partition. Who has it is decided by ``owners``: members may
disagree for a moment, and then one of them waits.
"""

from __future__ import annotations

import time
from typing import Any

from pika.spec import BasicProperties

from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.rpc import Rpc

__all__ = ["Members"]

_EVERY_S = 1.0
_GONE_AFTER_S = 4.0

#: A newcomer waits for answers before it takes anything.
_WELCOME_S = 0.4

_HERE, _GONE = "here", "gone"


class Members:
    """One member's view of its group, on the thread that drives ``connection``."""

    def __init__(self, connection: Connection, exchange: str, name: str) -> None:
        self._exchange = exchange
        self._name = name
        self._seen: dict[str, float] = {}
        self._joined_at = time.monotonic()
        self._announced_at = 0.0
        rpc = Rpc(connection)
        self._channel = rpc.channel
        rpc("exchange_declare", exchange=exchange, exchange_type="fanout", durable=True)
        queue = str(rpc("queue_declare", queue="", exclusive=True, auto_delete=True).queue)
        rpc("queue_bind", queue=queue, exchange=exchange)
        rpc.consume(queue, self._on_message, auto_ack=True)
        self._announce(_HERE)

    @property
    def settled(self) -> bool:
        """False while answers to a newcomer may still be on their way."""
        return time.monotonic() - self._joined_at > _WELCOME_S

    def share(self, partitions: int) -> set[int]:
        """Which of ``partitions`` this member should own, as things are now."""
        now = time.monotonic()
        if now - self._announced_at > _EVERY_S:
            self._announce(_HERE)
        self._seen = {who: at for who, at in self._seen.items() if now - at < _GONE_AFTER_S}
        names = sorted({*self._seen, self._name})
        return set(range(names.index(self._name), partitions, len(names)))

    def leave(self) -> None:
        """Announce it to the others, so that they need not wait."""
        if self._channel.is_open:
            self._announce(_GONE)

    def _on_message(self, _: Any, __: Any, properties: Any, body: bytes) -> None:
        who = body.decode(errors="replace")
        if who == self._name:
            return
        if properties.type == _GONE:
            self._seen.pop(who, None)
            return
        if who not in self._seen:
            self._announced_at = 0.0  # a newcomer must not wait a second for an answer
        self._seen[who] = time.monotonic()

    def _announce(self, what: str) -> None:
        self._announced_at = time.monotonic()
        properties = BasicProperties(type=what)
        self._channel.basic_publish(self._exchange, "", self._name.encode(), properties)
