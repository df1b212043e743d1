"""Buffer of messages that await the broker's confirmation."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from gearshift._core.clients import forked
from gearshift._core.condition import ObservedCondition
from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.listeners import OnConnection, ignore
from gearshift._core.publishing.batch import Batch
from gearshift._core.publishing.supervisor import Supervisor
from gearshift._core.publishing.window import TICK_S, Window
from gearshift.driver import Outcome, ProducerDriver
from gearshift.errors import BackpressureError, Closed, GearshiftError
from gearshift.message import SendResult
from gearshift.stats import SendStats

__all__ = ["PublishBuffer"]

log = logging.getLogger("gearshift.producer")


class PublishBuffer:
    """Confirmed, bounded, self-healing publishing to one channel. All methods from any thread.

    A batch is in it until each of its messages has a result. ``_lock`` guards the batches, those
    whose ``on_done`` is due, the counts, and what changes in the window and the supervisor. A
    thread, the keeper, ends batches at their deadlines, calls ``on_done`` and has the driver
    replaced; it publishes nothing.

    Making one connects, for up to ``open_timeout_s`` seconds, and raises what prevented it.
    ``on_reconnect`` is called before each further connection, and raises what prevents one.
    """

    def __init__(
        self,
        connect: Callable[[], ProducerDriver],
        failures: ErrorTranslator,
        *,
        on_reconnect: Callable[[], object] = lambda: None,
        on_connection: OnConnection = ignore,
        open_timeout_s: float = 10.0,
        max_in_flight: int = 10_000,
        max_in_flight_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._channel = failures.channel or ""
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # the keeper has something to do
        self._batches: dict[Batch, None] = {}  # in order of sending
        self._done: deque[Batch] = deque()
        self._closing = False
        self._stats = SendStats(channel=self._channel)
        self.changed = changed = ObservedCondition(self._lock)  # there may be room, or a new driver
        self._window = Window(changed, max_in_flight, max_in_flight_bytes, clock)
        self._supervisor = Supervisor(
            connect, on_reconnect, on_connection, failures, self._batches, changed,
            self._on_outcomes, clock,
        )  # fmt: skip
        self._supervisor.open(open_timeout_s)
        self._keeper = threading.Thread(
            target=self._keep, name=f"gearshift-publish-{self._channel}", daemon=True
        )
        self._keeper.start()

    def put(self, batch: Batch, *, waits: bool = True, again: bool = False) -> None:
        """Wait for room until the batch's deadline, then hand it over and return.

        A batch that may not wait (``waits``) is taken without a connection too, and refused at once
        if there is no room: no failure if the caller will put it ``again``. Raises, with nothing
        stored: BackpressureError or ConnectionFailed at the deadline, Closed, Forked. Results come
        through the batch.
        """
        if os.getpid() != self._pid:
            raise forked("producer")
        batch.begun_at = self._clock()
        with self._lock:
            try:
                self._window.enter(batch, self._obstacle, waits=waits)
            except GearshiftError as error:
                if not (again and isinstance(error, BackpressureError)):
                    self._stats.failed[type(error).__name__] += len(batch.messages)
                self._failures.translate(error)
                raise
            self._batches[batch] = None
        self._supervisor.submit(batch)

    def wait(self, batch: Batch) -> list[SendResult]:
        """Wait for the batch's results; at its deadline those still open become OutcomeUnknown.

        Meanwhile this thread works for the driver, if that has nobody else.
        """
        if batch.remaining:
            self._supervisor.serve(batch)
        if batch.remaining:
            self._wait_for_others(batch)
        return cast("list[SendResult]", batch.results)

    def when_done(self, batch: Batch, sink: Callable[[Batch], object]) -> None:
        """Call ``sink`` once the batch has its results, which may be at once.

        On the thread that brings the last of them; it must not block.
        """
        with self._lock:
            if batch.remaining:
                batch.sink = sink
                return
        sink(batch)

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight and every ``on_done`` has run.

        False if ``timeout_s`` passed first.
        """
        with self._lock:
            return self._window.changed.wait_for(
                lambda: not (self._batches or self._done), timeout_s
            )

    def close(self, timeout_s: float) -> None:
        """Flush, then give what is left its result (OutcomeUnknown) and stop. Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        if os.getpid() != self._pid:
            return
        self.flush(timeout_s)
        self._supervisor.stopping.set()
        with self._lock:
            self._work.notify_all()
            self._window.changed.notify_all()
        self._keeper.join()
        self._supervisor.close(0.0 if self._batches else timeout_s)
        for batch in list(self._batches):
            self._expire(batch)
        self._run_callbacks()

    @property
    def closed(self) -> bool:
        """True once ``close`` was called."""
        return self._closing

    @property
    def in_flight(self) -> int:
        """Messages handed over or waiting for a new connection, not yet confirmed."""
        return self._window.messages

    def stats(self) -> SendStats:
        """Counts of what was sent, and the state of the connection now."""
        with self._lock:
            now = SendStats(channel=self._channel) + self._stats
            now.in_flight = self._window.messages
            now.reconnects = self._supervisor.reconnects
        if not self._closing:
            self._supervisor.describe(now)
        return now

    def _obstacle(self, waits: bool) -> GearshiftError | None:
        if self._closing:
            raise Closed("this producer is closed")
        return self._supervisor.obstacle(waits)

    # ── results ──

    def _wait_for_others(self, batch: Batch) -> None:
        """Wait for the thread that brings the last result, or for the deadline."""
        with self._lock:
            if not batch.remaining:
                return
            batch.waiter = waiter = batch.waiter or threading.Lock()
            waiter.acquire(blocking=False)
        if not waiter.acquire(timeout=max(0.0, batch.deadline - self._clock())):
            self._expire(batch)

    def _on_outcomes(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        with self._lock:
            if not batch.remaining:
                return  # the outcomes came after the deadline
            lost = batch.record(outcomes, self._channel, self._failures)
            if not batch.remaining:
                self._finish(batch)
            if lost is not None:
                self._supervisor.lose(lost)
                self._work.notify_all()

    def _expire(self, batch: Batch) -> None:
        """Give what is open of ``batch`` its result now."""
        with self._lock:
            if batch.remaining:
                batch.expire(self._supervisor.not_stored, self._supervisor.broken)
                self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        """Count the batch, which has all its results, and let it go; with ``_lock`` held."""
        stats = self._stats
        stats.stored += len(batch.messages) - len(batch.errors)
        stats.resent += batch.resent
        for error in batch.errors:
            stats.failed[type(self._failures.translate(error)).__name__] += 1
        stats.took.add(self._clock() - batch.begun_at, len(batch.messages))
        del self._batches[batch]
        self._window.leave(batch)
        if batch.waiter is not None:
            batch.waiter.release()
        if batch.sink is not None:
            batch.sink(batch)
        if batch.on_done is not None:
            self._done.append(batch)
            self._work.notify_all()

    # ── the keeper ──

    def _keep(self) -> None:
        stopping = self._supervisor.stopping
        while not stopping.is_set():
            with self._lock:
                self._work.wait_for(self._has_work, TICK_S)
            self._run_callbacks()
            now = self._clock()
            with self._lock:
                overdue = [batch for batch in self._batches if batch.deadline <= now]
            for batch in overdue:
                self._expire(batch)
            self._supervisor.check()

    def _has_work(self) -> bool:
        supervisor = self._supervisor
        return bool(self._done) or supervisor.stopping.is_set() or supervisor.must_replace

    def _run_callbacks(self) -> None:
        while self._done:
            batch = self._done[0]
            assert batch.on_done is not None
            try:
                batch.on_done(batch)
            except Exception:
                log.exception("a callback of channel %r failed", self._channel)
            self._done.popleft()
            if not self._done:
                with self._lock:
                    self._window.changed.notify_all()  # flush waits for callbacks too
