"""A clock that moves when it is told to."""

from __future__ import annotations

import time

from gearshift.errors import UsageError

__all__ = ["Clock"]


class Clock:
    """Time of a harness: delays are due by it. It stands still while handlers run. Any thread."""

    def __init__(self) -> None:
        self._began = time.time()
        self._passed = 0.0

    @property
    def passed_s(self) -> float:
        """Seconds that have passed since the harness was opened."""
        return self._passed

    def monotonic(self) -> float:
        """As ``time.monotonic``."""
        return self._passed

    def time(self) -> float:
        """As ``time.time``: the present when the harness was opened, and what has passed since."""
        return self._began + self._passed

    def advance(self, seconds: float) -> None:
        """Let so much time pass, at once. What is due then is delivered by the next run."""
        if seconds < 0:
            raise UsageError(f"{seconds!r} s cannot pass", hint="time does not run backwards")
        self._passed += seconds
