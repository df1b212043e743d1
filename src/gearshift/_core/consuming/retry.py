"""Attempts at a message and the waits between them: the same on every broker."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from gearshift.errors import UsageError

__all__ = ["RetryPolicy", "checked_delay_s"]

LONGEST_DELAY_S = 7 * 86400.0

#: A consumer holds the message meanwhile, and brokers take back what is held for long.
LONGEST_BURIAL_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """``max_attempts`` in all, then the dead letter; waits double, ``delay_s`` to ``max_delay_s``.

    A tenth of jitter either way keeps a batch that failed together from coming back together.
    """

    max_attempts: int = 5
    delay_s: float = 1.0
    max_delay_s: float = 60.0
    random: Callable[[], float] = random.random

    def exhausted(self, attempts: int) -> bool:
        """True if ``attempts``, the failed one included, are all that there may be."""
        return attempts >= self.max_attempts

    def wait_s(self, attempts: int, chosen_s: float | None = None) -> float:
        """Seconds until the next attempt after ``attempts`` failed ones; ``chosen_s`` if given.

        Raises UsageError if that is not a finite number from 0 to a week.
        """
        if chosen_s is not None:
            checked_delay_s(chosen_s)
            return float(chosen_s)
        doubled = self.delay_s * 2.0 ** min(attempts - 1, 60)
        return min(self.max_delay_s, doubled) * (0.9 + 0.2 * self.random())

    def burial_wait_s(self, failures: int) -> float:
        """Seconds until a dead letter that could not be stored is tried again.

        Grows with ``failures`` as retries do, and also where retries do not wait.
        """
        wait_s = max(self.wait_s(failures), 0.1 * 2.0 ** min(failures - 1, 60))
        return min(LONGEST_BURIAL_WAIT_S, wait_s)


def checked_delay_s(delay_s: float | None) -> None:
    """Raise UsageError unless ``delay_s`` is None or a number of seconds from 0 to a week."""
    if delay_s is None or (isinstance(delay_s, int | float) and 0 <= delay_s <= LONGEST_DELAY_S):
        return
    raise UsageError(f"delay_s {delay_s!r} is out of range", hint="use 0 to 604800 seconds")
