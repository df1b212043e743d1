"""An async handler's messages as tasks of one event loop."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from gearshift import aio
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import Closed
from gearshift.worker import batches, dispatch
from gearshift.worker.app import Handler

__all__ = ["Settle", "TaskRunner"]

#: Settles deliveries by how their handler ended after so many seconds. May block unless it acks.
Settle = Callable[[Sequence[Delivery[Any]], dispatch.Ending, float], None]


class _HandlersConsumer(aio.Consumer[Any]):
    """Its deliveries are those that plain handlers get, each for a task of its own."""

    _delivery = Delivery
    _numbers = itertools.count()

    def _user(self) -> int:
        return next(self._numbers)


class TaskRunner:
    """Receives for one handler and runs each message as a task, ``concurrency`` at once.

    ``on_failure`` is told of what has ended a task, as only a fault of ours can.

    Everything is on the event loop, but for settling what is not acked, which may wait for room
    among the dead letters and is done in a thread.
    """

    def __init__(
        self,
        handler: Handler,
        consumer: Consumer[Any],
        dispatcher: dispatch.Dispatcher,
        settle: Settle,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._handler = handler
        self._consumer = consumer
        self._dispatcher = dispatcher
        self._settle = settle
        self._on_failure = on_failure
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Run until the consumer is told to stop receiving, and all tasks have ended.

        Raises Closed then, or what has ended the consumer for good.
        """
        consumer = _HandlersConsumer(self._consumer)
        most = self._handler.concurrency
        try:
            while True:
                if len(self._running) >= most:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for deliveries in await self._received(consumer, most - len(self._running)):
                    task = asyncio.create_task(self.handle(deliveries))
                    self._running.add(task)
                    task.add_done_callback(self._ended)
        except Closed:
            if self._running:
                await asyncio.wait(self._running)
            raise
        except asyncio.CancelledError:  # the drain has taken too long
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)
            raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Closed):
            self._on_failure(error)  # its message would be in hand for ever, and nobody be told

    async def _received(
        self, receiving: _HandlersConsumer, most: int
    ) -> list[Sequence[Delivery[Any]]]:
        """What the handler is called with next, up to ``most`` times. Raises Closed."""
        handler = self._handler
        if handler.batch is None:
            received = await receiving.receive(most)
            return [[each] for each in cast("list[Delivery[Any]]", received)]
        return [
            await batches.gather_async(receiving, self._consumer, handler.batch, handler.linger_s)
        ]

    async def handle(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Run the handler with them, and settle by how it ended."""
        deliveries, unable = batches.apart(self._handler.call, deliveries)
        for delivery, ended in unable:
            await asyncio.to_thread(self._settle, [delivery], ended, 0.0)
        if not deliveries:
            return
        call, begun_at = self._handler.call, time.perf_counter()
        ending = await self._dispatcher.run_async(
            partial(call, deliveries), call.function, deliveries, self._handler.timeout_s
        )
        took_s = time.perf_counter() - begun_at
        if self._consumer.closed:
            return  # it was cancelled after the drain, and its message given back
        if ending.action == "ack" or all(each.outcome is not None for each in deliveries):
            self._settle(deliveries, ending, took_s)
        else:
            await asyncio.to_thread(self._settle, deliveries, ending, took_s)
