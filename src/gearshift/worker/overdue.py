"""A warning about handlers that run longer than they may and cannot be interrupted."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Overdue"]

log = logging.getLogger("gearshift.worker")


class Overdue:
    """Logs one line for each call that has not ended in time. Any thread.

    A thread of its own looks at the time; it is started with the first call that is watched.
    ``_changed`` guards the rest: what is watched, soonest first, and what has ended meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._watched: list[tuple[float, int, str]] = []
        self._running: set[int] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watch(self, timeout_s: float | None, what: Callable[[], str]) -> Iterator[None]:
        """Around a call: log ``what()`` if it takes longer than ``timeout_s``; None: no limit."""
        if timeout_s is None:
            yield
            return
        with self._changed:
            number = next(self._numbers)
            self._running.add(number)
            heapq.heappush(self._watched, (self._clock() + timeout_s, number, what()))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="gearshift-overdue", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._running.discard(number)

    def close(self) -> None:
        """Stop watching."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                left_s = self._watched[0][0] - self._clock() if self._watched else None
                if left_s is None or left_s > 0:
                    self._changed.wait(left_s)
                    continue
                _, number, what = heapq.heappop(self._watched)
                if number in self._running:
                    log.warning("%s takes longer than it may, and goes on", what)
