"""A worker of a story that is run on a broker: what it handles, and what it leaves undone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import Any

from gearshift.bus import Bus
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import StaleDelivery
from gearshift.hooks.registry import Hooks
from gearshift.message import Semantics
from gearshift.testing.prove.interruption import Paused
from gearshift.worker.app import Handler
from gearshift.worker.dispatch import Dispatcher, Ending

__all__ = ["ReplayWorker"]


class ReplayWorker:
    """Handles a channel's messages with ``handler``, and ``hooks`` around it. One thread.

    ``left`` counts what has still to be handled, by id, ``dead`` are the ids of dead letters. Every
    wait ends at ``deadline``, a time of the monotonic clock.
    """

    def __init__(
        self,
        bus: Bus,
        channel: str,
        handler: Handler,
        hooks: Hooks,
        left: Counter[str | None],
        deadline: float,
    ) -> None:
        self.left = left
        self.dead: list[str | None] = []
        self._bus = bus
        self._channel = channel
        self._handler = handler
        self._deadline = deadline
        self._is_stream = bus.semantics(channel) is Semantics.STREAM
        self._loop = asyncio.Runner()
        self._dispatcher = Dispatcher(hooks, self._wait)

    def consumer(self, prefetch: int = 100) -> Consumer[Any]:
        """Another consumer of the channel."""
        kind = self._handler.call.value_type
        return self._bus.consumer(self._channel, value_type=kind, prefetch=prefetch, create=True)

    def next(self, consumer: Consumer[Any]) -> Delivery[Any]:
        """The next message. Raises TimeoutError."""
        found = consumer.receive(timeout_s=max(0.1, self._deadline - time.monotonic()))
        if not found:
            raise TimeoutError(f"no message came, {self.left.total()} are missing")
        return found[0]

    def reach(self, wanted: str | None) -> tuple[Consumer[Any], Delivery[Any]]:
        """A consumer, and ``wanted`` from it, before which all was handled and settled."""
        consumer = self.consumer(prefetch=100 if self._is_stream else 1)
        while (delivery := self.next(consumer)).id != wanted:
            self.handle(delivery)
        consumer.flush()
        return consumer, delivery

    # ── ways to handle it ──

    def handle(self, delivery: Delivery[Any]) -> None:
        """Handle and settle it."""
        self._settle(delivery, self._run(delivery))

    def handle_unacked(self, wanted: str | None, more: int) -> Consumer[Any]:
        """Handle ``wanted`` and leave it unsettled, on a stream also ``more`` behind it."""
        consumer, delivery = self.reach(wanted)
        self._run(delivery)
        for _ in range(min(more, self.left.total() - 1) if self._is_stream else 0):
            self.handle(self.next(consumer))
        consumer.flush()
        return consumer

    def handle_late(self, wanted: str | None, *, is_handled_first: bool) -> None:
        """Settle all others first; ``wanted`` is handled after them, or before and never settled.

        On a queue another consumer gets the others.
        """
        first, kept = self.reach(wanted)
        if is_handled_first:
            self._run(kept)
        other = first if self._is_stream else self.consumer()
        while self.left.total() > 1:
            self.handle(self.next(other))
        if not is_handled_first:
            self.handle(kept)
        first.close()
        other.close()

    def handle_with_another(self, wanted: str | None, line: int) -> None:
        """Handle ``wanted`` up to a line of the user's, the next of another key, and its rest.

        Async handlers are tasks of one loop, which change places where they await.
        """
        consumer = self.consumer()
        while (delivery := self.next(consumer)).id != wanted:
            self.handle(delivery)
        between: list[Delivery[Any]] = []
        while (other := self.next(consumer)).key == delivery.key is not None:
            between.append(other)
        if self._handler.call.is_async:
            self._handle_as_tasks(delivery, other)
        else:
            paused = Paused(partial(self.handle, delivery), line)
            paused.meanwhile(partial(self.handle, other))
        for one in between:
            self.handle(one)
        consumer.close()

    def close(self) -> None:
        """End its event loop."""
        self._loop.close()

    # ── inside ──

    def _run(self, delivery: Delivery[Any]) -> Ending:
        call = self._handler.call
        return self._dispatcher.run(partial(call, [delivery]), call.function, [delivery])

    def _handle_as_tasks(self, *deliveries: Delivery[Any]) -> None:
        call = self._handler.call

        async def run() -> list[Ending]:
            return await asyncio.gather(
                *(
                    self._dispatcher.run_async(partial(call, [one]), call.function, [one])
                    for one in deliveries
                )
            )

        for delivery, ending in zip(deliveries, self._loop.run(run()), strict=True):
            self._settle(delivery, ending)

    def _settle(self, delivery: Delivery[Any], ending: Ending) -> None:
        if delivery.outcome is None:
            try:
                ending.settle(delivery)
            except StaleDelivery:
                return  # somebody else has got it meanwhile
        if delivery.outcome == "reject":
            self.dead.append(delivery.id)
        if delivery.outcome != "retry" and self.left[delivery.id]:
            self.left[delivery.id] -= 1

    def _wait(self, awaitable: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return self._loop.run(awaited())
