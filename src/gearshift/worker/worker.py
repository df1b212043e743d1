"""An app's handlers in this process, plain ones on threads: start, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from gearshift._core import logs
from gearshift.bus import Bus
from gearshift.bus.connections import OPEN_TIMEOUT_S
from gearshift.bus.policies import MOST_PREFETCH
from gearshift.capabilities import Prefetch
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import AlreadySettled, Closed, GearshiftError, StaleDelivery, UsageError
from gearshift.message import Semantics
from gearshift.worker import batches, dispatch
from gearshift.worker.app import App, Handler
from gearshift.worker.dependencies import Provided
from gearshift.worker.event_loop import EventLoop
from gearshift.worker.overdue import Overdue
from gearshift.worker.tasks import Settle, TaskRunner

__all__ = ["DRAIN_TIMEOUT_S", "Worker", "WorkerReport"]

T = TypeVar("T")

log = logging.getLogger("gearshift.worker")

DRAIN_TIMEOUT_S = 30.0

#: Delivery.outcome → field of the report.
_COUNTERS = {"ack": "acked", "retry": "retried", "reject": "rejected", "stale": "stale"}


@dataclass(slots=True)
class WorkerReport:
    """How many deliveries ended how; the ids in ``unfinished`` will be delivered again."""

    acked: int = 0
    retried: int = 0
    rejected: int = 0
    stale: int = 0
    unfinished: list[str | None] = field(default_factory=list)


class Worker:
    """Runs an App's handlers in this process: plain ones on threads, async ones on an event loop.

    This is ``gearshift.Worker``. ``loop`` is the running loop on which these and async lifespans
    run; None is one of their own, on a thread. ``start`` connects and returns; ``stop`` drains. Any
    thread but the loop's may call them, once each. ``failed`` is set if a thread that handlers need
    has ended; ``error`` is what ended it. ``_lock`` guards the numbers of ``report``.
    """

    def __init__(
        self, app: App, bus: Bus, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        missing = [plugin for plugin in app.plugins if not bus.hooks.has(plugin)]
        if missing:
            raise UsageError(
                f"the app has plugins that its bus does not have: {missing}",
                hint="gearshift.open(plugins=app.plugins)",
            )
        for handler in app.handlers:
            if handler.batch is not None:
                bus.hooks.check_batches(handler.name)
        self._app = app
        self._bus = bus
        self._lock = threading.Lock()
        self._consumers: list[Consumer[Any]] = []
        self._threads: list[threading.Thread] = []
        self._serving: list[Future[None]] = []  # async handlers, on the loop
        self._loop = EventLoop(on_end=self._fail, running=loop)
        self._dispatcher = dispatch.Dispatcher(bus.hooks, self._loop.wait)
        self._provided = Provided(bus, self._loop)
        self._overdue = Overdue()
        self._log = logs.LimitedLog(log)
        self._stopping = False
        self.report = WorkerReport()
        self.failed = threading.Event()
        self.error: BaseException | None = None

    def start(self, *, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Enter the app's lifespans, open every handler's consumer and begin.

        ``timeout_s`` as in ``Bus.consumer``.

        Raises what that raises. If it is retryable, call it again: it goes on where it failed.
        """
        self._loop.refuse("Worker.start")
        if self._stopping:
            raise UsageError(
                "this worker was stopped", hint="make another one: gearshift.Worker(app, bus)"
            )
        needs = [need for handler in self._app.handlers for need in handler.call.needs]
        self._provided.enter(self._app.lifespans, needs, timeout_s)
        for registered in self._app.handlers[len(self._consumers) :]:
            handler = replace(registered, call=registered.call.given_by(self._provided))
            consumer = self._bus.consumer(
                handler.channel,
                group=handler.group,
                value_type=handler.call.value_type,
                prefetch=self._prefetch(handler),
                rate_limit=handler.rate_limit,
                requires=handler.requires,
                serial_keys=True,
                timeout_s=timeout_s,
            )
            consumer._record_handler_limit(handler.concurrency * (handler.batch or 1))
            self._consumers.append(consumer)
            begin = self._begin_tasks if handler.call.is_async else self._begin_threads
            begin(handler, consumer, partial(self._settle, handler, consumer))
            log.info("handling %s, concurrency %d", handler.name, handler.concurrency)

    def state(self, kind: type[T]) -> T:
        """What a lifespan of the app has yielded, by its type. Raises UsageError."""
        return self._provided.state(kind)

    def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every consumer is assigned and positioned. Raises DeadlineExceeded."""
        for consumer in self._consumers:
            consumer.ready(timeout_s)

    def is_ready(self) -> bool:
        """True if ``ready`` would return at once. Does not block."""
        try:
            self.ready(0.0)
        except GearshiftError:
            return False
        return True

    def stop(self, drain_timeout_s: float = DRAIN_TIMEOUT_S) -> WorkerReport:
        """Receive nothing more, wait for running handlers, settle, close. Returns the report.

        Raises UsageError in a handler, which would wait for itself.
        """
        self._loop.refuse("Worker.stop")
        if threading.current_thread() in self._threads:
            raise UsageError(
                "Worker.stop was called in a handler, for which it would wait",
                hint="have another thread call it; gearshift run stops on SIGTERM",
            )
        self._stopping = True
        deadline = time.monotonic() + drain_timeout_s
        for consumer in self._consumers:
            consumer.stop_receiving()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        futures.wait(self._serving, max(0.0, deadline - time.monotonic()))
        for consumer in self._consumers:
            self.report.unfinished += consumer.close(max(1.0, deadline - time.monotonic()))
        self._provided.close()
        self._loop.close()
        self._overdue.close()
        return self.report

    def _prefetch(self, handler: Handler) -> int | None:
        """Return the handler's own, or None for the channel's: what is handled at once at least.

        On a queue that locks what it hands out in batches it is no more than that: what waited
        behind a slow handler would lose its lock, and others could have had it.
        """
        if handler.prefetch is not None:
            return handler.prefetch
        channel, in_hand = handler.channel, handler.concurrency * (handler.batch or 1)
        is_soft = self._bus.capabilities(channel).prefetch is Prefetch.SOFT
        if is_soft and self._is_queue(channel):
            return in_hand
        # While a batch is handled the next one comes.
        wanted = min(in_hand + (handler.batch or 0), MOST_PREFETCH)
        return wanted if self._bus.config.channel(channel).prefetch < wanted else None

    def _is_queue(self, channel: str) -> bool:
        return self._bus.semantics(channel) is Semantics.QUEUE

    def _begin_tasks(self, handler: Handler, consumer: Consumer[Any], settle: Settle) -> None:
        tasks = TaskRunner(handler, consumer, self._dispatcher, settle, self._fail)
        serving = self._loop.begin(tasks.serve())
        serving.add_done_callback(self._served)
        self._serving.append(serving)

    def _begin_threads(self, handler: Handler, consumer: Consumer[Any], settle: Settle) -> None:
        for number in range(handler.concurrency):
            thread = threading.Thread(
                target=self._work,
                args=(handler, consumer, settle),
                name=f"gearshift-{handler.channel}-{number}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def _work(self, handler: Handler, consumer: Consumer[Any], settle: Settle) -> None:
        try:
            while True:
                if handler.batch is None:
                    deliveries = consumer.receive()
                else:
                    deliveries = batches.gather(consumer, handler.batch, handler.linger_s)
                self._handle(handler, deliveries, settle)
        except BaseException as error:
            self._ended(error)

    def _served(self, serving: Future[None]) -> None:
        error = None if serving.cancelled() else serving.exception()
        if error is not None:
            self._ended(error)

    def _ended(self, error: BaseException) -> None:
        """A handler receives nothing any more. Somebody may have closed its bus."""
        if not (self._stopping and isinstance(error, Closed)):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Note that a thread which handlers need has ended, and why."""
        self.error = self.error or error
        self.failed.set()

    def _handle(
        self, handler: Handler, deliveries: Sequence[Delivery[Any]], settle: Settle
    ) -> None:
        """Run the handler on this thread, and settle by how it ended."""
        deliveries, unable = batches.apart(handler.call, deliveries)
        for delivery, ended in unable:
            settle([delivery], ended, 0.0)
        if not deliveries:
            return
        begun_at, limit_s = time.perf_counter(), handler.timeout_s
        with self._overdue.watch(limit_s, lambda: f"{handler.name}, {_named(deliveries)},"):
            ending = self._dispatcher.run(
                partial(handler.call, deliveries), handler.call.function, deliveries
            )
        took_s = time.perf_counter() - begun_at
        if limit_s is not None and took_s > limit_s and ending.error is None:
            ending = dispatch.ending_of(dispatch.late(limit_s))
        settle(deliveries, ending, took_s)

    def _settle(
        self,
        handler: Handler,
        consumer: Consumer[Any],
        deliveries: Sequence[Delivery[Any]],
        ending: dispatch.Ending,
        took_s: float,
    ) -> None:
        """Settle by how the handler ended what it has not settled itself. Any thread."""
        if ending.failed:
            self._log.error(
                "%s failed on %s", handler.name, _named(deliveries), exc_info=ending.error
            )
        each_s = took_s / len(deliveries)
        for delivery, one in zip(deliveries, batches.endings(ending, deliveries), strict=True):
            outcome = self._settle_one(handler, delivery, one)
            consumer._record_handled(outcome, each_s)
            counter = _COUNTERS[outcome]
            with self._lock:
                setattr(self.report, counter, getattr(self.report, counter) + 1)

    def _settle_one(
        self, handler: Handler, delivery: Delivery[Any], ending: dispatch.Ending
    ) -> str:
        """Return the outcome."""
        try:
            if delivery.outcome is None:
                ending.settle(delivery)
        except (StaleDelivery, AlreadySettled) as error:
            self._log.warning("%s: %s", handler.name, error)
            return "stale"
        return str(delivery.outcome)


def _named(deliveries: Sequence[Delivery[Any]]) -> str:
    """What a handler was given, for logs."""
    first, last = deliveries[0], deliveries[-1]
    if first is last:
        return f"message {first.id!r}, attempt {first.attempt}"
    return f"a batch of {len(deliveries)} messages, {first.id!r} to {last.id!r}"
