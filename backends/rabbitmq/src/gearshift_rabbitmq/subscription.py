"""A consumer in AMQP's sense, which gives way to another where its prefetch must change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gearshift_rabbitmq.rpc import Rpc

__all__ = ["Subscription"]


class Subscription:
    """Has ``queue`` pushed to ``on_message``, over the AMQP channel of ``rpc``.

    ``window`` is how many unacknowledged messages it allows, not counting those that came before
    it. A subscription keeps that number, so another one takes its place.
    """

    def __init__(
        self, rpc: Rpc, queue: str, on_message: Callable[..., None], *, name: str, window: int
    ) -> None:
        self._rpc = rpc
        self._queue = queue
        self._on_message = on_message
        self._name = name
        self._arguments: Mapping[str, Any] = {}
        self._number = 0
        self.window = window
        #: The delivery tag after which it began: see ``restart``.
        self.began_after = 0
        self.is_starting = False
        self.tag = ""

    def start(self, arguments: Mapping[str, Any], *, now: bool = True) -> None:
        """Set prefetch and arguments and, unless that is for later, subscribe. Waits."""
        self._arguments = arguments
        self._rpc("basic_qos", prefetch_count=self.window)
        if now:
            self._rpc.consume(self._queue, self._on_message, **self._next())

    def restart(self, *, after: int = 0, arguments: Mapping[str, Any] | None = None) -> None:
        """Subscribe again, once it was stopped. Does not wait; ``after`` is the last delivery
        tag."""
        if arguments is not None:
            self._arguments = arguments
        self.is_starting = True
        self.began_after = after
        self._rpc.channel.basic_consume(
            self._queue, self._on_message, callback=self._on_started, **self._next()
        )

    def stop(self) -> None:
        """End it without waiting. What was on its way still comes: pika would reject it, and the
        broker would count that."""
        self._rpc.channel.basic_cancel(self.tag, callback=lambda _: None)
        self._rpc.channel._cancelled.discard(self.tag)

    def fits(self, wanted: int) -> bool:
        """Whether ``window`` is near enough to ``wanted`` messages."""
        return 0.8 * self.window <= wanted <= 2 * self.window

    def resize(self, wanted: int, held: int) -> None:
        """Stop, and allow about ``wanted`` from the next start on, of which ``held`` are here."""
        self.stop()
        # What is here counts no more for the new one; by half it can be filled again soon.
        self.window = max(wanted - held, -(-wanted // 2))
        self._rpc.channel.basic_qos(prefetch_count=self.window)

    def _next(self) -> dict[str, Any]:
        """A tag can only be used again when the broker has confirmed the end of the last one."""
        self._number += 1
        self.tag = f"{self._name[:240]}#{self._number}"
        return {"consumer_tag": self.tag, "arguments": dict(self._arguments)}

    def _on_started(self, _: Any) -> None:
        self.is_starting = False
