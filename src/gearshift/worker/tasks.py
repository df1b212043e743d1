"""An async handler's messages as tasks of one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from gearshift import aio
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import Closed
from gearshift.hooks.registry import Hooks
from gearshift.worker import dispatch
from gearshift.worker.app import Handler

__all__ = ["Settle", "TaskRunner"]

#: Settles a delivery by how its handler ended after so many seconds. May block unless it acks.
Settle = Callable[[Delivery[Any], dispatch.Ending, float], None]


class _HandlersConsumer(aio.Consumer[Any]):
    """Its deliveries are those that plain handlers get."""

    _delivery = Delivery


class TaskRunner:
    """Receives for one handler and runs each message as a task, ``concurrency`` at once.

    Everything is on the event loop, but for settling what is not acked, which may wait for room
    among the dead letters and is done in a thread.
    """

    def __init__(
        self, handler: Handler, consumer: Consumer[Any], hooks: Hooks, settle: Settle
    ) -> None:
        self._handler = handler
        self._consumer = consumer
        self._hooks = hooks
        self._settle = settle
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Run until the consumer is told to stop receiving, and all tasks have ended.

        Raises what has ended the consumer for good.
        """
        consumer = _HandlersConsumer(self._consumer)
        most = self._handler.concurrency
        try:
            while True:
                if len(self._running) >= most:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                deliveries = await consumer.receive(most - len(self._running))
                for delivery in cast("list[Delivery[Any]]", deliveries):
                    task = asyncio.create_task(self.handle(delivery))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
        except Closed:
            if self._running:
                await asyncio.wait(self._running)

    async def handle(self, delivery: Delivery[Any]) -> None:
        """Run the handler with one message, and settle by how it ended."""
        hooks, function = self._hooks, self._handler.call.function
        begun_at = time.perf_counter()
        ending = await dispatch.run_async(
            partial(self._handler.call, delivery),
            around=hooks.around and partial(hooks.around, delivery, function),
            within=hooks.within and partial(hooks.within, delivery, function),
            timeout_s=self._handler.timeout_s,
        )
        took_s = time.perf_counter() - begun_at
        if self._consumer.closed:
            return  # it was cancelled after the drain, and its message given back
        if ending.action == "ack" or delivery.outcome is not None:
            self._settle(delivery, ending, took_s)
        else:
            await asyncio.to_thread(self._settle, delivery, ending, took_s)
