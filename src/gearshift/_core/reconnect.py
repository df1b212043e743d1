"""Making a driver, again and again with backoff, until it works or nobody wants it any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.logs import LimitedLog
from gearshift.errors import ConnectionFailed, GearshiftError, PermissionDenied, UnknownChannel

__all__ = ["Pauses", "connect_until", "is_lasting", "is_lasting_after", "never", "tell_still_away"]

log = logging.getLogger("gearshift.connection")

Driver = TypeVar("Driver")

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0

#: A connection that lasted for so long was a good one.
STEADY_S = 10.0


def connect_until(
    connect: Callable[[], Driver],
    failures: ErrorTranslator,
    *,
    stop: threading.Event,
    timeout_s: float | None = None,
    on_failure: Callable[[GearshiftError], None] = lambda _: None,
    give_up_on: Callable[[GearshiftError], bool] = lambda error: not error.retryable,
) -> Driver | None:
    """Call ``connect`` until it returns a driver; None once ``stop`` is set.

    Waits 0.05 to 2 s between attempts, growing and jittered. Raises the last error, translated,
    when ``timeout_s`` has passed or ``give_up_on`` says so. Blocks; ``stop`` ends a wait at once.
    """

    def attempt() -> Driver:
        try:
            return connect()
        except Exception as error:
            failure = failures.translate(error)
            on_failure(failure)
            raise failure from failure.__cause__

    retrying = tenacity.Retrying(
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)
        + tenacity.wait_random(0, FIRST_WAIT_S),
        stop=_stop(stop, timeout_s),
        sleep=tenacity.sleep_using_event(stop),
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, GearshiftError) and not give_up_on(error)
        ),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except GearshiftError:
        if stop.is_set():
            return None
        raise


def tell_still_away(log: LimitedLog, failure: GearshiftError) -> None:
    """Log a failed attempt to connect again, as a warning if the broker refused it."""
    if failure.retryable:
        log.info("channel %r: not connected again yet: %s", failure.channel, failure)
    else:
        log.warning("channel %r: may not connect again yet: %s", failure.channel, failure)


def never(_error: GearshiftError) -> bool:
    """Give up on nothing: what was right at open may be right again (a channel declared anew)."""
    return False


def is_lasting(error: GearshiftError) -> bool:
    """True for what no wait will mend, though all was well at open.

    A refused password, permission or certificate may be right again: somebody is changing it. A
    channel that was deleted is declared again.
    """
    passing = (ConnectionFailed, PermissionDenied, UnknownChannel)
    return not error.retryable and not isinstance(error, passing)


def is_lasting_after(
    grace_s: float, clock: Callable[[], float] = time.monotonic
) -> Callable[[GearshiftError], bool]:
    """As ``is_lasting``, and so is a channel that stays missing for ``grace_s``.

    A broker that has just started may not know its channels yet.
    """
    since: float | None = None

    def give_up(error: GearshiftError) -> bool:
        nonlocal since
        if not isinstance(error, UnknownChannel):
            since = None
            return is_lasting(error)
        since = clock() if since is None else since
        return clock() - since > grace_s

    return give_up


class Pauses:
    """Waits before a connection is replaced, which grow if each breaks as soon as it is made.

    A broker may take every connection, and refuse what it is then asked for.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._made_at = clock()
        self._short_lives = 0

    def made(self) -> None:
        """There is a new connection."""
        self._made_at = self._clock()

    def next_s(self) -> float:
        """It broke: seconds to wait, 0 after one that lasted."""
        if self._clock() - self._made_at >= STEADY_S:
            self._short_lives = 0
            return 0.0
        self._short_lives += 1
        return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._short_lives - 1, 60))


def _stop(stop: threading.Event, timeout_s: float | None) -> tenacity.stop.stop_base:
    closed = tenacity.stop_when_event_set(stop)
    return closed if timeout_s is None else closed | tenacity.stop_after_delay(timeout_s)
