"""The one thread that owns a consumer's driver: receives, settles, keeps alive, reconnects.

It never runs user code and never waits for it, so heartbeats, leases and group membership do not
depend on how slow the handlers are.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

from gearshift._core.consuming.log_settlements import LogSettlements
from gearshift._core.consuming.loop_side import LoopSide, PartitionEvents
from gearshift._core.consuming.settlements import QueueSettlements, Report
from gearshift._core.consuming.shared import SharedWindow, no_wake
from gearshift._core.failures import Failures
from gearshift._core.listeners import OnConnection
from gearshift._core.logs import SAY_AGAIN_S, LimitedLog
from gearshift._core.reconnect import (
    Pauses,
    connect_until,
    is_lasting,
    is_lasting_after,
    tell_still_away,
)
from gearshift.driver import (
    LogDriver,
    LogEvents,
    QueueDriver,
    Received,
    SettleFailure,
    Start,
)
from gearshift.errors import Closed, GearshiftError

__all__ = ["ConsumerLoop", "LogReceiver", "QueueReceiver"]

log = logging.getLogger("gearshift.consumer")

#: How long a consumer waits for a channel that is gone and that it may not create. Seconds.
MISSING_GRACE_S = 30.0

#: How long the broker may take to store notes before the driver's connection is served again.
_STORE_NOTES_S = 2.0


class QueueReceiver:
    """A connected driver of a queue, as the loop uses it."""

    def __init__(self, driver: QueueDriver) -> None:
        self.driver = driver
        self._isolates = True  # as a new driver does

    @staticmethod
    def open(connect: Callable[[], QueueDriver], side: LoopSide) -> QueueReceiver:
        """Connect, and show the driver to ``side``."""
        driver = connect()
        side.connected(QueueSettlements(driver.cumulative_ack), driver.wake, ready=True)
        return QueueReceiver(driver)

    def isolate(self, wanted: bool) -> None:
        """Have lost messages come alone, or not."""
        if wanted != self._isolates:
            self._isolates = wanted
            self.driver.isolate(wanted)

    def tell(self, report: Report, side: LoopSide) -> Sequence[SettleFailure]:
        """Settle what is reported; returns what came too late."""
        failures = self.driver.settle(report.settlements) if report.settlements else ()
        side.told(report, failures=len(failures))
        return failures

    def seek(self, start: Start) -> None:
        raise NotImplementedError("a queue has no history")  # which Consumer.seek has said


class LogReceiver:
    """A connected driver of a log, as the loop uses it."""

    def __init__(self, driver: LogDriver) -> None:
        self.driver = driver
        self.seek = driver.seek

    @staticmethod
    def open(connect: Callable[[LogEvents], LogDriver], side: LoopSide) -> LogReceiver:
        """Connect, and show the driver to ``side``, which hears of partitions from the start."""
        shared = side.shared
        settlements = LogSettlements(shared.name, shared.window.prefetch)
        # First, as a driver may assign partitions while it is being made.
        side.connected(settlements, no_wake, ready=False)
        driver = connect(PartitionEvents(shared, settlements))
        shared.wake = driver.wake
        return LogReceiver(driver)

    def isolate(self, wanted: bool) -> None:
        """Nothing: core withholds what was lost."""

    def tell(self, report: Report, side: LoopSide) -> Sequence[SettleFailure]:
        """Commit the places that are reported, and have notes stored if they must be."""
        if report.places:
            self.driver.commit(report.places)
        noted = report.notes > 0 and self.driver.flush(_STORE_NOTES_S)
        side.told(report, noted=noted)
        return ()


Receiver: TypeAlias = QueueReceiver | LogReceiver


class ConsumerLoop:
    """Runs from ``start`` to ``stop``. An error that no reconnect can mend ends it.

    Users reach its thread through ``seek`` (a queue), ``stop`` (an event) and the ``SharedWindow``;
    everything else belongs to the thread.
    """

    def __init__(
        self,
        open_receiver: Callable[[LoopSide], Receiver],
        shared: SharedWindow,
        failures: Failures,
        *,
        name: str,
        on_reconnect: Callable[[], object],
        on_connection: OnConnection,
        open_timeout_s: float,
    ) -> None:
        self.on_connection = on_connection
        self._open_receiver = open_receiver
        self._shared = shared
        self._side = LoopSide(shared)
        self._failures = failures
        self._on_reconnect = on_reconnect
        self._open_timeout_s = open_timeout_s
        self._stop = threading.Event()
        self._close_timeout_s = 10.0
        self._seeks: queue.SimpleQueue[tuple[Start, Future[None]]] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"gearshift-{name}", daemon=True)
        self._log = LimitedLog(log)
        self._still = LimitedLog(log, burst=1, period_s=SAY_AGAIN_S)
        self._pauses = Pauses()
        self._is_told = True  # that it is connected again
        self._was_ready = True  # the driver before the present one
        self.reconnects = 0

    def start(self) -> None:
        """Start the thread and wait for the first connection. Raises what prevented it."""
        self._thread.start()
        self._opened.result()

    def seek(self, start: Start, timeout_s: float) -> None:
        """Have a stream consumer continue at ``start``. Blocks; raises what the driver raises."""
        done: Future[None] = Future()
        self._seeks.put((start, done))
        self._shared.wake()
        done.result(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Tell the broker what is settled and close the driver, which gives back the rest."""
        self._close_timeout_s = timeout_s
        self._stop.set()
        self._shared.wake()
        if self._thread.ident is not None:
            self._thread.join()

    # ── the thread ──

    def _run(self) -> None:
        try:
            receiver = self._connect_first()
        except BaseException as error:
            self._side.disconnected()
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while self._serve(receiver):
                reopened = self._reconnect()
                if reopened is None:
                    break
                receiver = reopened
        except GearshiftError as error:
            log.error("the consumer has stopped: %s", error)
            self._side.failed(error)
        finally:
            self._fail_seeks()

    def _connect_first(self) -> Receiver:
        opened = connect_until(
            self._open, self._failures, stop=self._stop, timeout_s=self._open_timeout_s
        )
        if opened is None:
            raise Closed("closed while it was being opened")
        return opened

    def _open(self) -> Receiver:
        return self._open_receiver(self._side)

    def _reopen(self) -> Receiver:
        self._on_reconnect()
        return self._open()

    def _reconnect(self) -> Receiver | None:
        self._stop.wait(self._pauses.next_s())
        opened = connect_until(
            self._reopen,
            self._failures,
            stop=self._stop,
            on_failure=self._note_failure,
            give_up_on=is_lasting_after(MISSING_GRACE_S),
        )
        if opened is not None:
            self.reconnects += 1
            self._pauses.made()
            self._is_told = False
        return opened

    def _note_failure(self, failure: GearshiftError) -> None:
        self._side.cut_off(failure)
        tell_still_away(self._still, failure)

    def _serve(self, receiver: Receiver) -> bool:
        """Serve one driver until it breaks (True) or the loop is stopped (False)."""
        driver = receiver.driver
        try:
            while not self._stop.is_set():
                self._tell(receiver)
                self._answer_seeks(receiver)
                fetch = self._side.fetch()
                receiver.isolate(fetch.isolates)
                arrivals = driver.receive(fetch.room, fetch.patience_s)
                self._side.heard(driver.heard_at)
                if not self._is_told and self._shared.ready:
                    self._is_told = True
                    log.info("channel %r: connected again", self._failures.channel)
                    self.on_connection("back")
                if arrivals and arrivals[0].unstored is not None:
                    self._keep(arrivals)
                elif arrivals:
                    self._side.add(arrivals)
            self._side.leave()
            self._tell(receiver)
        except Exception as error:
            self._break(receiver, error)
            return not self._stop.is_set()
        self._close(receiver)
        return False

    def _break(self, receiver: Receiver, error: Exception) -> None:
        """The driver is finished. Raises what no new one will mend."""
        is_ready = self._shared.ready
        self._side.disconnected()
        with contextlib.suppress(Exception):
            receiver.driver.close(0.0)
        failure = self._failures.translate(error)
        if is_lasting(failure):
            raise failure from failure.__cause__
        if is_ready or self._was_ready:
            self._side.cut_off(failure)
            self._log.warning(
                "channel %r: connection lost, what was unsettled will come again: %s",
                self._failures.channel,
                failure,
            )
            self.on_connection("lost", failure)
        else:  # it was connected, and never came as far as the one that was lost
            self._note_failure(failure)
        self._was_ready = is_ready

    def _close(self, receiver: Receiver) -> None:
        try:
            receiver.driver.close(self._close_timeout_s)
        except Exception as error:
            log.warning("closing the consumer: %s", self._failures.translate(error))
        self._side.disconnected()

    def _tell(self, receiver: Receiver) -> None:
        for failure in receiver.tell(self._side.take(), self._side):
            self._log.warning(
                "channel %r: a settlement came too late, the message will come again: %s",
                self._failures.channel,
                self._failures.translate(failure.error),
            )

    def _keep(self, returned: Sequence[Received]) -> None:
        """Retries that were not stored: they wait here instead."""
        for received in returned:
            assert received.unstored is not None, "they come without others"
            error, delay_s = received.unstored
            failure = self._failures.translate(error)
            self._log.warning(
                "channel %r: the retry of message %r was not stored by the broker; it waits here "
                "for %.1f s: %s",
                self._failures.channel, received.message.id, delay_s, failure,
            )  # fmt: skip
            self._side.keep_unstored(received, failure)

    def _answer_seeks(self, receiver: Receiver) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                start, done = self._seeks.get_nowait()
                try:
                    self._side.forget()
                    receiver.seek(start)
                except Exception as error:
                    done.set_exception(self._failures.translate(error))
                    raise
                done.set_result(None)

    def _fail_seeks(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._seeks.get_nowait()[1].set_exception(Closed("this consumer is closed"))
