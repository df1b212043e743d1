"""The broker's consumer_timeout: how long a message may be held."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gearshift.driver import Received

__all__ = ["ConsumerTimeout"]

#: What was received within so many seconds is one age to a broker that does not say its limit.
_TOGETHER_S = 0.1


class ConsumerTimeout:
    """Says what a consumer has held for too long. ``work_s`` is how long processing may take."""

    def __init__(self, timeout_s: float, work_s: float) -> None:
        self.timeout_s = timeout_s
        self._lock_s = timeout_s - min(1.0, timeout_s / 10)
        #: How long a delivery may wait for somebody who works on it.
        self._wait_s = min(timeout_s / 2, max(timeout_s / 10, self._lock_s - work_s))
        self._next_at = 0.0  # nothing that is held is over before

    def of_new(self) -> tuple[float, float]:
        """``locked_until`` and ``return_at`` of what has just come."""
        now = time.monotonic()
        return now + self._lock_s, now + self._wait_s

    def over(self, held: Callable[[], Sequence[Received]], now: float) -> list[int]:
        """Tags of what was held for too long; ``held`` is only called if there may be any."""
        if now < self._next_at:
            return []
        ends = [(_until(one), one.token.tag) for one in held()]
        self._next_at = min([now + self._lock_s, *(until for until, _ in ends if until > now)])
        return [tag for until, tag in ends if until <= now]

    def taken_back(self, held: Sequence[Received]) -> set[int]:
        """Tags of what the broker has taken back: the oldest, and what is as old or over."""
        if not held:
            return set()
        limit = max(min(map(_until, held)) + _TOGETHER_S, time.monotonic())
        return {one.token.tag for one in held if _until(one) <= limit}


def _until(one: Received) -> float:
    assert one.locked_until is not None
    return one.locked_until
