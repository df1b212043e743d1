"""The driver of one channel, replaced when its connection is lost."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.listeners import OnConnection
from gearshift._core.logs import SAY_AGAIN_S, LimitedLog
from gearshift._core.publishing.batch import Batch
from gearshift._core.reconnect import Pauses, connect_until, never, tell_still_away
from gearshift.driver import Outcome, ProducerDriver
from gearshift.driver.helpers import SLOWEST_BYTES_PER_S
from gearshift.errors import BackpressureError, ConnectionFailed, GearshiftError, UnknownChannel
from gearshift.stats import SendStats

__all__ = ["Supervisor"]

log = logging.getLogger("gearshift.producer")

#: A driver that has reported nothing of the oldest batch this long is replaced, in seconds, and
#: later by what its bytes take on the slowest way to a broker.
STUCK_AFTER_S = 45.0


@dataclass(slots=True, eq=False)
class Supervisor:
    """Owns a driver; replaces it when it is lost, and sends again, in order, what has no outcome.

    ``batches`` are those without results, in order of sending. The lock of ``changed``, which is
    notified when there is a new driver, guards them and what changes here. Driver calls are one at
    a time, under ``_calls``, which nobody takes while holding that lock.
    """

    connect: Callable[[], ProducerDriver]
    on_reconnect: Callable[[], object]
    on_connection: OnConnection
    failures: ErrorTranslator
    batches: Mapping[Batch, None]
    changed: threading.Condition
    on_outcomes: Callable[[Batch, Sequence[Outcome]], None]
    clock: Callable[[], float]
    stopping: threading.Event = field(default_factory=threading.Event)
    broken: GearshiftError | None = None  # why the driver has to be replaced
    reconnects: int = 0
    _driver: ProducerDriver | None = None
    _connected_at: float = 0.0
    _reported: tuple[Batch, int] | None = None  # the oldest, and what remained of it
    _reported_at: float = 0.0  # when that was seen to change
    _lost_at: float | None = None  # when the broker was last heard, if there is no driver
    _replacing: threading.Thread | None = None
    _calls: threading.Lock = field(default_factory=threading.Lock)
    _pauses: Pauses = field(init=False)
    _log: LimitedLog = field(default_factory=lambda: LimitedLog(log))
    _still: LimitedLog = field(
        default_factory=lambda: LimitedLog(log, burst=1, period_s=SAY_AGAIN_S)
    )

    def open(self, timeout_s: float) -> None:
        """Connect for the first time. Raises what prevented it for ``timeout_s`` seconds."""
        self._driver = connect_until(
            self.connect, self.failures, stop=self.stopping, timeout_s=timeout_s
        )
        self._connected_at = self.clock()
        self._pauses = Pauses(self.clock)

    # ── the driver that there is ──

    def submit(self, batch: Batch) -> None:
        """Hand ``batch`` over, unless it was; without a driver the next one is given it.

        If it is awaited, the caller calls ``serve`` next.
        """
        with self._calls:
            if self._driver is not None and batch.handed_at is None:
                self._hand_over(batch, self._driver, served=batch.is_awaited)

    def serve(self, batch: Batch) -> None:
        """Let the driver work on this thread while the outcomes of ``batch`` are awaited."""
        driver = self._driver
        if driver is not None:
            driver.serve(lambda: not batch.remaining, batch.deadline - self.clock())

    def obstacle(self, waits: bool) -> GearshiftError | None:
        """Return the reason if nothing can be handed over now; with the lock held.

        For a caller that cannot wait, a missing connection is none: the next driver is given its
        batch.
        """
        if self._driver is None or self.broken is not None:
            return self.not_stored() if waits else None
        blocked = self._driver.blocked()
        if blocked is None:
            return None
        return BackpressureError(f"the broker takes no messages: {blocked}")

    def not_stored(self) -> GearshiftError:
        """The error of what no driver has stored at its deadline; with the lock held."""
        text = f"nothing is stored: {self.broken or 'not connected'}"
        error: GearshiftError = ConnectionFailed(f"no connection before the deadline, {text}")
        if isinstance(self.broken, UnknownChannel):
            error = UnknownChannel(f"still missing at the deadline, {text}")
        error.__cause__ = self.broken
        return error

    def describe(self, stats: SendStats) -> None:
        """Fill in the present state of the connection. Any thread."""
        with self.changed:
            driver, lost_at, broken = self._driver, self._lost_at, self.broken
        heard_at = lost_at if driver is None else driver.heard_at
        if heard_at is not None:
            stats.silent_s = max(0.0, self.clock() - heard_at)
        if lost_at is not None:
            stats.disconnected = str(broken)
        if driver is not None:
            stats.blocked = driver.blocked()

    def close(self, timeout_s: float) -> None:
        """Close the driver, which flushes for ``timeout_s``, and make no other."""
        self.stopping.set()
        if self._replacing is not None:
            self._replacing.join()
        with self._calls:
            driver, self._driver = self._driver, None
        if driver is not None:
            driver.close(timeout_s)

    def _hand_over(self, batch: Batch, driver: ProducerDriver, *, served: bool = False) -> None:
        """Give ``driver`` what is open of ``batch``; with ``_calls`` held."""
        with self.changed:
            numbers = batch.hand_over(self.clock())
        if len(numbers) == len(batch.messages):
            submit = driver.submit_served if served else driver.submit
            submit(batch.messages, partial(self.on_outcomes, batch))
        elif numbers:

            def renumbered(outcomes: Sequence[Outcome]) -> None:
                self.on_outcomes(
                    batch, [replace(one, number=numbers[one.number]) for one in outcomes]
                )

            driver.submit([batch.messages[number] for number in numbers], renumbered)

    # ── the next one ──

    @property
    def must_replace(self) -> bool:
        """True if the driver is lost and nobody is replacing it yet."""
        return self.broken is not None and self._replacing is None

    def lose(self, failure: GearshiftError) -> None:
        """Have the driver replaced, which can store nothing more; with the lock held."""
        self.broken = self.broken or failure

    def check(self) -> None:
        """Begin to replace the driver if it is lost, has ended or reports nothing. Never blocks."""
        with self.changed:
            if self._driver is not None:
                self.broken = self.broken or self._fault(self._driver)
            if not self.must_replace:
                return
            # On a thread of its own: deadlines must pass while a connect hangs.
            self._replacing = threading.Thread(
                target=self._replace, name="gearshift-reconnect", daemon=True
            )
        self._replacing.start()

    def _fault(self, driver: ProducerDriver) -> GearshiftError | None:
        if driver.ended is not None:
            return self.failures.translate(driver.ended)
        oldest, now = next(iter(self.batches), None), self.clock()
        reported = None if oldest is None else (oldest, oldest.remaining)
        if reported != self._reported is not None:
            self._reported_at = now
        self._reported = reported
        if oldest is None or oldest.handed_at is None or driver.blocked() is not None:
            return None
        silent_s = now - max(oldest.handed_at, self._connected_at, self._reported_at)
        if silent_s <= STUCK_AFTER_S + oldest.size / SLOWEST_BYTES_PER_S:
            return None
        return ConnectionFailed(f"nothing was confirmed for {silent_s:.0f} s")

    def _replace(self) -> None:
        with self._calls, self.changed:
            old, self._driver = self._driver, None
            heard_at = None if old is None else old.heard_at
            self._lost_at = self.clock() if heard_at is None else heard_at
        what = "it is gone" if isinstance(self.broken, UnknownChannel) else "connection lost"
        self._log.warning(
            "channel %r: %s, reconnecting: %s", self.failures.channel, what, self.broken
        )
        self.on_connection("lost", self.broken)
        if old is not None:
            with contextlib.suppress(Exception):
                old.close(0.0)  # what it still held is reported UNKNOWN before this returns
        self.stopping.wait(self._pauses.next_s())
        driver = connect_until(
            self._connect_again,
            self.failures,
            stop=self.stopping,
            on_failure=self._note_failure,
            give_up_on=never,
        )
        if driver is not None:
            self._adopt(driver)

    def _connect_again(self) -> ProducerDriver:
        self.on_reconnect()
        return self.connect()

    def _note_failure(self, failure: GearshiftError) -> None:
        with self.changed:
            self.broken = failure
        tell_still_away(self._still, failure)

    def _adopt(self, driver: ProducerDriver) -> None:
        with self._calls:
            with self.changed:
                self._driver = driver
                self._connected_at = self.clock()
                self._pauses.made()
                self.broken = self._lost_at = self._replacing = None
                batches = list(self.batches)
            for batch in batches:
                self._hand_over(batch, driver)
        with self.changed:
            self.reconnects += 1
            self.changed.notify_all()
        log.info("channel %r: connected again", self.failures.channel)
        self.on_connection("back")
