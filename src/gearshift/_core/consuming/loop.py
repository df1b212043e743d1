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
from dataclasses import dataclass
from typing import TypeAlias, cast

from gearshift._core.consuming.inbox import Inbox
from gearshift._core.consuming.settlements import LogSettlements, QueueSettlements, Settlements
from gearshift._core.failures import Failures
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

__all__ = ["ConsumerLoop", "LogConnect", "QueueConnect"]

log = logging.getLogger("gearshift.consumer")

#: How long a consumer waits for a channel that is gone and that it may not create. Seconds.
MISSING_GRACE_S = 30.0

Driver: TypeAlias = QueueDriver | LogDriver


@dataclass(frozen=True, slots=True)
class QueueConnect:
    """Makes the drivers of a queue consumer."""

    connect: Callable[[], QueueDriver]

    def open(self, inbox: Inbox) -> tuple[QueueDriver, Settlements]:
        driver = self.connect()
        settlements = QueueSettlements(driver.cumulative_ack)
        inbox.connected(settlements, driver.wake, ready=True)
        return driver, settlements


@dataclass(frozen=True, slots=True)
class LogConnect:
    """Makes the drivers of a stream consumer; the inbox hears of partitions from the start."""

    connect: Callable[[LogEvents], LogDriver]

    def open(self, inbox: Inbox) -> tuple[LogDriver, Settlements]:
        # The settlements is there first: a driver may assign partitions while it is being made.
        settlements = LogSettlements()
        inbox.connected(settlements, lambda: None, ready=False)
        driver = self.connect(inbox)
        inbox.wake = driver.wake
        return driver, settlements


class ConsumerLoop:
    """Runs from ``start`` to ``stop``. Errors that no reconnect can mend end it: see the inbox."""

    def __init__(
        self,
        source: QueueConnect | LogConnect,
        inbox: Inbox,
        failures: Failures,
        *,
        name: str,
        on_reconnect: Callable[[], object],
        open_timeout_s: float,
    ) -> None:
        self._source = source
        self._inbox = inbox
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
        self._is_told = True  # how it is with the connection
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
        self._inbox.wake()
        done.result(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Tell the broker what is settled and close the driver, which gives back the rest."""
        self._close_timeout_s = timeout_s
        self._stop.set()
        self._inbox.wake()
        if self._thread.ident is not None:
            self._thread.join()

    # ── the thread ──

    def _run(self) -> None:
        try:
            driver, settlements = self._connect_first()
        except BaseException as error:
            self._inbox.disconnected()
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while self._serve(driver, settlements):
                reopened = self._reconnect()
                if reopened is None:
                    break
                driver, settlements = reopened
        except GearshiftError as error:
            log.error("the consumer has stopped: %s", error)
            self._inbox.failed(error)
        finally:
            self._fail_seeks()

    def _connect_first(self) -> tuple[Driver, Settlements]:
        opened = connect_until(
            self._open, self._failures, stop=self._stop, timeout_s=self._open_timeout_s
        )
        if opened is None:
            raise Closed("closed while it was being opened")
        return opened

    def _open(self) -> tuple[Driver, Settlements]:
        return self._source.open(self._inbox)

    def _reopen(self) -> tuple[Driver, Settlements]:
        self._on_reconnect()
        return self._open()

    def _reconnect(self) -> tuple[Driver, Settlements] | None:
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
        self._inbox.cut_off(failure)
        tell_still_away(self._still, failure)

    def _serve(self, driver: Driver, settlements: Settlements) -> bool:
        """Serve one driver until it breaks (True) or the loop is stopped (False)."""
        isolated = True  # as a new driver does
        try:
            while not self._stop.is_set():
                self._tell(driver, settlements)
                self._answer_seeks(driver)
                if isinstance(settlements, QueueSettlements) and self._inbox.isolates() != isolated:
                    isolated = not isolated
                    cast(QueueDriver, driver).isolate(isolated)
                arrivals = driver.receive(self._inbox.room(), self._inbox.patience_s())
                self._inbox.heard(getattr(driver, "heard_at", None))
                if not self._is_told and self._inbox.ready:
                    self._is_told = True
                    log.info("channel %r: connected again", self._failures.channel)
                if arrivals and arrivals[0].unstored is not None:
                    self._keep(arrivals)
                elif arrivals:
                    self._inbox.add(arrivals)
            self._inbox.leave()
            self._tell(driver, settlements)
        except Exception as error:
            self._break(driver, error)
            return not self._stop.is_set()
        self._close(driver)
        return False

    def _break(self, driver: Driver, error: Exception) -> None:
        """The driver is finished. Raises what no new one will mend."""
        is_ready = self._inbox.ready
        self._inbox.disconnected()
        with contextlib.suppress(Exception):
            driver.close(0.0)
        failure = self._failures.translate(error)
        if is_lasting(failure):
            raise failure from failure.__cause__
        if is_ready or self._was_ready:
            self._inbox.cut_off(failure)
            self._log.warning(
                "channel %r: connection lost, what was unsettled will come again: %s",
                self._failures.channel,
                failure,
            )
        else:  # it was connected, and never came as far as the one that was lost
            self._note_failure(failure)
        self._was_ready = is_ready

    def _close(self, driver: Driver) -> None:
        try:
            driver.close(self._close_timeout_s)
        except Exception as error:
            log.warning("closing the consumer: %s", self._failures.translate(error))
        self._inbox.disconnected()

    def _tell(self, driver: Driver, settlements: Settlements) -> None:
        failures: Sequence[SettleFailure] = settlements.tell(driver, self._inbox.take())
        for failure in failures:
            self._log.warning(
                "channel %r: a settlement came too late, the message will come again: %s",
                self._failures.channel,
                self._failures.translate(failure.error),
            )
        self._inbox.told(len(failures))

    def _keep(self, returned: Sequence[Received]) -> None:
        """Retries that were not stored: they wait here instead."""
        for incoming in returned:
            assert incoming.unstored is not None, "they come without others"
            error, delay_s = incoming.unstored
            failure = self._failures.translate(error)
            self._log.warning(
                "channel %r: the retry of message %r was not stored by the broker; it waits here "
                "for %.1f s: %s",
                self._failures.channel, incoming.message.id, delay_s, failure,
            )  # fmt: skip
            self._inbox.keep_unstored(incoming, failure)

    def _answer_seeks(self, driver: Driver) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                start, done = self._seeks.get_nowait()
                try:
                    self._inbox.forget()
                    cast(LogDriver, driver).seek(start)  # only asked of streams
                except Exception as error:
                    done.set_exception(self._failures.translate(error))
                    raise
                done.set_result(None)

    def _fail_seeks(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._seeks.get_nowait()[1].set_exception(Closed("this consumer is closed"))
