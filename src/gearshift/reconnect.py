"""Making a driver, again and again with backoff, until it works or nobody wants it any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from gearshift.errors import GearshiftError, UnknownChannel
from gearshift.failures import Failures

__all__ = ["connect_until"]

log = logging.getLogger("gearshift.connection")

Driver = TypeVar("Driver")

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0


def connect_until(
    connect: Callable[[], Driver],
    failures: Failures,
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


def never(_error: GearshiftError) -> bool:
    """Give up on nothing: what was right at open may be right again (a channel declared anew)."""
    return False


def unless_missing(error: GearshiftError) -> bool:
    """Give up on what no wait will mend; a channel that was deleted is declared again instead."""
    return not error.retryable and not isinstance(error, UnknownChannel)


def unless_missing_for(
    grace_s: float, clock: Callable[[], float] = time.monotonic
) -> Callable[[GearshiftError], bool]:
    """As ``unless_missing``, but give up on a channel that stays missing for ``grace_s``.

    A broker that has just started may not know its channels yet.
    """
    since: float | None = None

    def give_up(error: GearshiftError) -> bool:
        nonlocal since
        if not isinstance(error, UnknownChannel):
            since = None
            return not error.retryable
        since = clock() if since is None else since
        return clock() - since > grace_s

    return give_up


def _stop(stop: threading.Event, timeout_s: float | None) -> tenacity.stop.stop_base:
    closed = tenacity.stop_when_event_set(stop)
    return closed if timeout_s is None else closed | tenacity.stop_after_delay(timeout_s)
