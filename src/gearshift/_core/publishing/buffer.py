"""What is sent and not yet confirmed: bounded, watched, and sent again when a connection is lost.

A *batch* is the unit of everything here (room, hand-over, outcomes), so that the price per message
stays small. A batch is in the buffer from the moment there is room for it until each of its
messages has a result. When the driver's connection breaks, or its channel is gone, a background
thread makes sure of the channel, makes a new driver, and hands over, in order and under the same
ids, what has no result yet.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gearshift._core.failures import Failures
from gearshift._core.logs import SAY_AGAIN_S, LimitedLog
from gearshift._core.reconnect import Pauses, connect_until, never, tell_still_away
from gearshift.driver import Outcome, ProducerDriver, Stored
from gearshift.errors import (
    BackpressureError,
    Closed,
    ConnectionFailed,
    Forked,
    GearshiftError,
    MessageTooLarge,
    OutcomeUnknown,
    UnknownChannel,
)
from gearshift.message import Message, Receipt, SendResult
from gearshift.stats import SendStats

__all__ = ["Batch", "PublishBuffer"]

log = logging.getLogger("gearshift.producer")

#: A driver that has reported nothing for the oldest message this long is replaced.
STUCK_AFTER_S = 45.0
_TICK_S = 0.25


class Batch:
    """Messages that are handed over together, and their results in the same order.

    ``on_done`` runs once, when every result is there, on the buffer's thread.
    """

    __slots__ = (
        "begun_at", "deadline", "driver", "finished", "handed_at", "maybe_stored", "messages",
        "not_stored", "number", "on_done", "remaining", "results", "size",
    )  # fmt: skip

    def __init__(
        self,
        messages: Sequence[Message],
        deadline: float,
        on_done: Callable[[Batch], None] | None = None,
    ) -> None:
        self.messages = messages
        self.deadline = deadline
        self.on_done = on_done
        self.results: list[SendResult | None] = [None] * len(messages)
        self.remaining = len(messages)
        self.size = sum(message.size for message in messages)
        self.finished = threading.Event()
        self.driver: ProducerDriver | None = None
        self.begun_at = 0.0
        self.handed_at = 0.0
        self.number = -1
        self.maybe_stored: set[int] = set()  # by a driver before the present one
        self.not_stored: set[int] = set()  # as the present driver has said

    def unresolved(self) -> list[int]:
        """Numbers of the messages that have no result yet."""
        return [number for number, result in enumerate(self.results) if result is None]


class PublishBuffer:
    """Confirmed, bounded, self-healing publishing to one channel. All methods from any thread.

    Making one connects, for up to ``open_timeout_s`` seconds, and raises what prevented it.
    ``on_reconnect`` is called before each further connection, and raises what prevents one.
    """

    def __init__(
        self,
        connect: Callable[[], ProducerDriver],
        failures: Failures,
        *,
        channel: str,
        on_reconnect: Callable[[], object] = lambda: None,
        open_timeout_s: float = 10.0,
        max_in_flight: int = 10_000,
        max_in_flight_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._on_reconnect = on_reconnect
        self._failures = failures
        self._channel = channel
        self._max_in_flight = max_in_flight
        self._max_bytes = max_in_flight_bytes
        self._clock = clock
        self._pid = os.getpid()
        self._state = threading.Lock()
        self._room = threading.Condition(self._state)  # somebody's batch ended, or a driver came
        self._work = threading.Condition(self._state)  # the keeper has something to do
        self._submitting = (
            threading.Lock()
        )  # driver calls are one at a time; never taken inside _state
        self._batches: dict[int, Batch] = {}
        self._numbers = itertools.count()
        self._in_flight = 0
        self._bytes = 0
        self._done: deque[Batch] = deque()
        self._broken: Exception | None = None  # why the driver has to be replaced
        self._closing = False
        self._stop = threading.Event()
        self._replacing: threading.Thread | None = None
        self._stats = SendStats(channel=channel)
        self._lost_at: float | None = None  # without a connection: when the broker was last heard
        self._pauses = Pauses(clock)
        self._log = LimitedLog(log)
        self._still = LimitedLog(log, burst=1, period_s=SAY_AGAIN_S)
        self._driver: ProducerDriver | None = connect_until(
            connect, failures, stop=self._stop, timeout_s=open_timeout_s
        )
        self._keeper = threading.Thread(
            target=self._keep, name=f"gearshift-publish-{channel}", daemon=True
        )
        self._keeper.start()

    # ── the way in ──

    def put(self, batch: Batch, *, waits: bool = True) -> None:
        """Wait for room until the batch's deadline, then hand it over and return.

        A batch that may not wait (``waits``) is taken without a connection too, and refused at once
        if there is no room. Raises, with nothing stored: BackpressureError or ConnectionFailed at
        the deadline, Closed, Forked. Results come through the batch.
        """
        if os.getpid() != self._pid:
            raise Forked(
                "this producer was made in a parent process; its connection cannot be shared",
                hint="open the bus in the child, after the fork",
            )
        batch.begun_at = self._clock()
        with self._state:
            try:
                self._wait_for_room(batch, waits)
            except GearshiftError as error:
                self._stats.failed[type(error).__name__] += len(batch.messages)
                raise
            self._in_flight += len(batch.messages)
            self._bytes += batch.size
            batch.number = next(self._numbers)
            self._batches[batch.number] = batch
        with self._submitting:
            driver = self._driver
            if driver is not None and batch.driver is None:  # else the keeper hands it over
                self._hand_over(batch, driver)

    def wait(self, batch: Batch) -> list[SendResult]:
        """Wait for the batch's results; at its deadline those still open become OutcomeUnknown."""
        if not batch.finished.wait(max(0.0, batch.deadline - self._clock())):
            self._expire(batch)
        return [result for result in batch.results if result is not None]

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight and every ``on_done`` has run.

        False if ``timeout_s`` passed first.
        """
        with self._state:
            return self._room.wait_for(lambda: not (self._batches or self._done), timeout_s)

    def close(self, timeout_s: float) -> None:
        """Flush, then give what is left its result (OutcomeUnknown) and stop. Idempotent."""
        with self._state:
            if self._closing:
                return
            self._closing = True
        if os.getpid() != self._pid:
            return
        self.flush(timeout_s)
        self._stop.set()
        with self._state:
            self._work.notify_all()
            self._room.notify_all()
        self._keeper.join()
        if self._replacing is not None:
            self._replacing.join()
        with self._submitting:
            driver, self._driver = self._driver, None
        if driver is not None:
            driver.close(0.0 if self._batches else timeout_s)
        for batch in list(self._batches.values()):
            self._expire(batch)
        self._run_done()

    @property
    def closed(self) -> bool:
        """True once ``close`` was called."""
        return self._closing

    @property
    def in_flight(self) -> int:
        """Messages handed over or waiting for a new connection, not yet confirmed."""
        return self._in_flight

    def stats(self) -> SendStats:
        """What was sent, and how it is now."""
        with self._state:
            now = replace(SendStats(channel=self._channel) + self._stats, in_flight=self._in_flight)
            driver, lost_at, broken = self._driver, self._lost_at, self._broken
        if self._closing:
            return now
        heard_at = lost_at if driver is None else _heard_at(driver)
        if heard_at is not None:
            now.silent_s = max(0.0, self._clock() - heard_at)
        if lost_at is not None:
            now.disconnected = str(broken)
        if driver is not None:
            now.blocked = driver.blocked()
        return now

    # ── room ──

    def _wait_for_room(self, batch: Batch, waits: bool) -> None:
        while not self._closing:
            reason = self._obstacle(batch, waits)
            if reason is None:
                return
            left = batch.deadline - self._clock()
            if left <= 0 or not waits:
                raise reason
            # A blocked broker is not announced to us, so it is asked again at every tick.
            self._room.wait(min(left, _TICK_S))
        raise Closed("this producer is closed", channel=self._channel)

    def _obstacle(self, batch: Batch, waits: bool) -> GearshiftError | None:
        connected = self._driver is not None and self._broken is None
        if waits and not connected:
            return self._no_connection()
        blocked = self._driver.blocked() if connected and self._driver is not None else None
        if blocked is not None:
            return self._located(BackpressureError(f"the broker takes no messages: {blocked}"))
        over = self._in_flight + len(batch.messages) > self._max_in_flight or (
            self._bytes + batch.size > self._max_bytes
        )
        if over and self._in_flight:  # one batch always fits into an empty buffer
            return self._located(
                BackpressureError(
                    f"{self._in_flight} messages ({self._bytes} bytes) wait for confirmation",
                    hint="send more slowly, wait with flush(), or give a longer timeout_s",
                )
            )
        return None

    def _no_connection(self) -> GearshiftError:
        reason = self._broken or "not connected"
        error: GearshiftError
        if isinstance(reason, UnknownChannel):
            error = UnknownChannel(f"still missing at the deadline, nothing is stored: {reason}")
        else:
            error = ConnectionFailed(
                f"no connection before the deadline, nothing is stored: {reason}"
            )
        error.__cause__ = self._broken
        return self._located(error)

    def _located(self, error: GearshiftError) -> GearshiftError:
        return self._failures.translate(error)

    # ── outcomes ──

    def _hand_over(self, batch: Batch, driver: ProducerDriver) -> None:
        """Give what is unresolved to ``driver``; with _submitting held."""
        with self._state:
            untouched = batch.remaining == len(batch.messages)
            numbers = None if untouched else batch.unresolved()
            if batch.driver is not None:
                batch.maybe_stored.update(set(batch.unresolved()) - batch.not_stored)
                batch.not_stored.clear()
            batch.driver = driver
            batch.handed_at = self._clock()
        if numbers is None:
            driver.submit(batch.messages, partial(self._on_outcomes, batch, None))
        elif numbers:
            messages = [batch.messages[number] for number in numbers]
            driver.submit(messages, partial(self._on_outcomes, batch, numbers))

    def _on_outcomes(
        self, batch: Batch, numbers: list[int] | None, outcomes: Sequence[Outcome]
    ) -> None:
        broken: Exception | None = None
        with self._state:
            if not batch.remaining:
                return  # it came after the batch's deadline
            for number, stored, position, error in outcomes:
                index = number if numbers is None else numbers[number]
                if batch.results[index] is not None:
                    continue
                result: SendResult
                if stored is Stored.YES:
                    resent = bool(batch.maybe_stored) and index in batch.maybe_stored
                    message_id = batch.messages[index].id or ""
                    result = Receipt(message_id, self._channel, position, resent)
                else:
                    failure = self._failure(batch, index, stored, error)
                    if _ends_driver(failure):
                        broken = failure
                    if _heals(failure):
                        if stored is Stored.NO:
                            batch.not_stored.add(index)
                        continue
                    result = failure
                batch.results[index] = result
                batch.remaining -= 1
            if not batch.remaining:
                self._finish(batch)
            if broken is not None and self._broken is None:
                self._broken = broken
                self._work.notify_all()

    def _failure(
        self, batch: Batch, index: int, stored: Stored, error: Exception | None
    ) -> GearshiftError:
        failure = self._failures.translate(error or ConnectionFailed("no reason given"))
        if isinstance(failure, MessageTooLarge):
            failure = _sized(failure, batch.messages[index].size)
        certain = stored is Stored.NO and index not in batch.maybe_stored
        if certain or _heals(failure) or isinstance(failure, OutcomeUnknown):
            return failure
        return self._unknown(batch.messages[index], str(failure), failure)

    def _unknown(
        self, message: Message, reason: str, cause: Exception | None = None
    ) -> GearshiftError:
        error = OutcomeUnknown(
            f"message {message.id!r} may or may not be stored: {reason}",
            hint="send it again under the same id if a duplicate does less harm than a loss",
            message_id=message.id,
        )
        error.__cause__ = cause
        return self._located(error)

    def _finish(self, batch: Batch) -> None:
        """The batch has all results; with _state held."""
        self._count(batch)
        del self._batches[batch.number]
        self._in_flight -= len(batch.messages)
        self._bytes -= batch.size
        batch.finished.set()
        if batch.on_done is not None:
            self._done.append(batch)
            self._work.notify_all()
        self._room.notify_all()

    def _count(self, batch: Batch) -> None:
        stats = self._stats
        for result in batch.results:
            if isinstance(result, Receipt):
                stats.stored += 1
                stats.resent += result.resent
            else:
                stats.failed[type(result).__name__] += 1
        stats.took.add(self._clock() - batch.begun_at, len(batch.messages))

    def _expire(self, batch: Batch) -> None:
        """Give what is still open its result now."""
        with self._state:
            if batch.finished.is_set():
                return
            for index in batch.unresolved():
                batch.results[index] = self._verdict_at_deadline(batch, index)
            batch.remaining = 0
            self._finish(batch)

    def _verdict_at_deadline(self, batch: Batch, index: int) -> GearshiftError:
        untouched = batch.driver is None or index in batch.not_stored
        if untouched and index not in batch.maybe_stored:
            return self._no_connection()
        message = batch.messages[index]
        return self._unknown(message, "no confirmation before the deadline", self._broken)

    # ── the keeper: deadlines, callbacks, reconnecting ──

    def _keep(self) -> None:
        while not self._stop.is_set():
            with self._state:
                self._work.wait_for(self._has_work, _TICK_S)
            self._run_done()
            self._expire_overdue()
            if self._broken is not None and self._replacing is None:
                # On a thread of its own: deadlines must pass while a connect hangs.
                self._replacing = threading.Thread(
                    target=self._replace_driver, name="gearshift-reconnect", daemon=True
                )
                self._replacing.start()

    def _has_work(self) -> bool:
        broken = self._broken is not None and self._replacing is None
        return self._stop.is_set() or bool(self._done) or broken

    def _run_done(self) -> None:
        while self._done:
            batch = self._done[0]
            assert batch.on_done is not None
            try:
                batch.on_done(batch)
            except Exception:
                log.exception("a callback of channel %r failed", self._channel)
            self._done.popleft()
            if not self._done:
                with self._state:
                    self._room.notify_all()  # flush waits for callbacks too

    def _expire_overdue(self) -> None:
        now = self._clock()
        with self._state:
            waiting = list(self._batches.values())
            driver = self._driver
        for batch in waiting:
            if batch.deadline <= now:
                self._expire(batch)
        ended: Exception | None = getattr(driver, "ended", None)
        if ended is not None:
            with self._state:
                self._broken = self._broken or self._failures.translate(ended)
        stuck = any(b.driver is driver and now - b.handed_at > STUCK_AFTER_S for b in waiting)
        if stuck and driver is not None and driver.blocked() is None:
            with self._state:
                self._broken = self._broken or ConnectionFailed(
                    f"nothing was confirmed for {STUCK_AFTER_S:.0f} s"
                )

    def _replace_driver(self) -> None:
        with self._submitting:
            old, self._driver = self._driver, None
            heard_at = _heard_at(old)
            self._lost_at = self._clock() if heard_at is None else heard_at
        what = "it is gone" if isinstance(self._broken, UnknownChannel) else "connection lost"
        self._log.warning("channel %r: %s, reconnecting: %s", self._channel, what, self._broken)
        if old is not None:
            with contextlib.suppress(Exception):
                old.close(0.0)  # what it still held is reported UNKNOWN before this returns
        self._stop.wait(self._pauses.next_s())
        driver = connect_until(
            self._reconnect,
            self._failures,
            stop=self._stop,
            on_failure=self._note_failure,
            give_up_on=never,
        )
        if driver is not None:
            self._adopt(driver)

    def _reconnect(self) -> ProducerDriver:
        self._on_reconnect()
        return self._connect()

    def _note_failure(self, failure: GearshiftError) -> None:
        self._broken = failure
        tell_still_away(self._still, failure)

    def _adopt(self, driver: ProducerDriver) -> None:
        with self._submitting:
            with self._state:
                self._broken = self._lost_at = None
                self._driver = driver
                self._replacing = None
                open_batches = list(self._batches.values())
            for batch in open_batches:
                self._hand_over(batch, driver)
        with self._state:
            self._pauses.made()
            self._stats.reconnects += 1
            self._room.notify_all()
        log.info("channel %r: connected again", self._channel)


def _heard_at(driver: ProducerDriver | None) -> float | None:
    """When the broker last said anything; None if the driver does not tell."""
    at: float | None = getattr(driver, "heard_at", None)
    return at


def _sized(failure: MessageTooLarge, size: int) -> MessageTooLarge:
    """One of its own for each message, which says how large that is; drivers may not know."""
    sized = MessageTooLarge(
        f"{size} bytes with key and headers: {failure.message}",
        hint=failure.hint,
        backend=failure.backend,
        channel=failure.channel,
    )
    sized.__cause__ = failure.__cause__
    return sized


def _ends_driver(failure: GearshiftError) -> bool:
    """It can store nothing more, whatever becomes of this message."""
    reasons = (failure, failure.__cause__)
    return any(isinstance(reason, ConnectionFailed | UnknownChannel) for reason in reasons)


def _heals(failure: GearshiftError) -> bool:
    """A new driver may do what this one could not, over a channel that was declared again."""
    is_lost = isinstance(failure, ConnectionFailed) and failure.retryable
    return is_lost or isinstance(failure, UnknownChannel)
