"""The one thread that owns a consumer's driver: receives, settles, keeps alive, reconnects.

It never runs user code and never waits for it, so heartbeats, leases and group membership do not
depend on how slow the handlers are.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

from gearshift._core.consuming.receivers import IDLE_INTERVAL_S, Receiver
from gearshift._core.consuming.shared_window import SharedWindow
from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.listeners import OnConnection
from gearshift._core.logs import SAY_AGAIN_S, LimitedLog
from gearshift._core.reconnect import (
    Pauses,
    connect_until,
    is_lasting,
    is_lasting_after,
    tell_still_away,
)
from gearshift.driver import Start
from gearshift.errors import Closed, GearshiftError, UnknownChannel

__all__ = ["ConsumerLoop"]

log = logging.getLogger("gearshift.consumer")

#: How long a consumer waits for a channel that is gone and that it may not create. Seconds.
MISSING_GRACE_S = 30.0


class ConsumerLoop:
    """Runs from ``start`` to ``stop``. An error that no reconnect can mend ends it.

    Users reach its thread through ``seek`` (a queue), ``stop`` (an event) and the ``SharedWindow``;
    everything else belongs to the thread. ``gearshift.testing`` has one without a thread.
    """

    _most_wait_s = IDLE_INTERVAL_S  # for messages, in one turn

    def __init__(
        self,
        connect: Callable[[], Receiver],
        shared: SharedWindow,
        failures: ErrorTranslator,
        *,
        name: str,
        on_reconnect: Callable[[], object],
        on_connection: OnConnection,
        open_timeout_s: float,
    ) -> None:
        self.on_connection = on_connection
        self._connect = connect
        self._shared = shared
        self._failures = failures
        self._on_reconnect = on_reconnect
        self._open_timeout_s = open_timeout_s
        self._stop = threading.Event()
        self._close_timeout_s = 10.0
        self._seeks: queue.SimpleQueue[tuple[Start, Future[None]]] = queue.SimpleQueue()
        self._opened: Future[None] = Future()  # the first connection
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
            self._shared.disconnected()
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while self._serve(receiver) and (again := self._reconnect()) is not None:
                receiver = again
        except GearshiftError as error:
            log.error("the consumer has stopped: %s", error)
            self._shared.failed(error)
        finally:
            self._fail_seeks()

    def _connect_first(self) -> Receiver:
        opened = connect_until(
            self._connect, self._failures, stop=self._stop, timeout_s=self._open_timeout_s
        )
        if opened is None:
            raise Closed("closed while it was being opened")
        return opened

    def _connect_again(self) -> Receiver:
        self._on_reconnect()
        return self._connect()

    def _reconnect(self) -> Receiver | None:
        self._stop.wait(self._pauses.next_s())
        opened = connect_until(
            self._connect_again,
            self._failures,
            stop=self._stop,
            on_failure=self._note_failure,
            give_up_on=is_lasting_after(MISSING_GRACE_S),
        )
        if opened is not None:
            self._connected_again()
        return opened

    def _connected_again(self) -> None:
        self.reconnects += 1
        self._pauses.made()
        self._is_told = False

    def _note_failure(self, failure: GearshiftError) -> None:
        self._shared.cut_off = failure
        tell_still_away(self._still, failure)

    def _serve(self, receiver: Receiver) -> bool:
        """Serve one driver until it breaks (True) or the loop is stopped (False)."""
        try:
            while not self._stop.is_set():
                self._take_turn(receiver)
            receiver.leave()
            self._report(receiver)
        except Exception as error:
            self._break(receiver, error)
            return not self._stop.is_set()
        try:
            receiver.driver.close(self._close_timeout_s)
        except Exception as error:
            log.warning("closing the consumer: %s", self._failures.translate(error))
        self._shared.disconnected()
        return False

    def _take_turn(self, receiver: Receiver) -> None:
        """Tell the driver what is settled, then receive. Raises what ends the driver."""
        self._report(receiver)
        self._answer_seeks(receiver)
        self._receive(receiver)

    def _break(self, receiver: Receiver, error: Exception) -> None:
        """The driver is finished. Raises what no new one will mend."""
        is_ready = self._shared.ready
        self._shared.disconnected()
        with contextlib.suppress(Exception):
            receiver.driver.close(0.0)
        failure = self._failures.translate(error)
        if is_lasting(failure):
            raise failure from failure.__cause__
        if is_ready or self._was_ready:
            self._shared.cut_off = failure
            is_gone = isinstance(failure, UnknownChannel)
            self._log.warning(
                "channel %r: %s: %s",
                self._failures.channel,
                "it is not there any more, and what was unsettled may be lost"
                if is_gone
                else "connection lost, what was unsettled will come again",
                failure,
            )
            self.on_connection("lost", failure)
        else:  # it was connected, and never came as far as the one that was lost
            self._note_failure(failure)
        self._was_ready = is_ready

    def _report(self, receiver: Receiver) -> None:
        for failure in receiver.report():
            self._log.warning(
                "channel %r: a settlement came too late, the message will come again: %s",
                self._failures.channel,
                self._failures.translate(failure.error),
            )

    def _receive(self, receiver: Receiver) -> None:
        for received in receiver.receive(self._most_wait_s):
            assert received.unstored is not None
            error, delay_s = received.unstored
            failure = self._failures.translate(error)
            self._log.warning(
                "channel %r: the retry of message %r was not stored by the broker; it waits here "
                "for %.1f s: %s",
                self._failures.channel, received.message.id, delay_s, failure,
            )  # fmt: skip
            receiver.keep_unstored(received, failure)
        if not self._is_told and self._shared.ready:
            self._is_told = True
            log.info("channel %r: connected again", self._failures.channel)
            self.on_connection("back")

    def _answer_seeks(self, receiver: Receiver) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                start, done = self._seeks.get_nowait()
                try:
                    receiver.seek(start)
                except Exception as error:
                    done.set_exception(self._failures.translate(error))
                    raise
                done.set_result(None)

    def _fail_seeks(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._seeks.get_nowait()[1].set_exception(Closed("this consumer is closed"))
