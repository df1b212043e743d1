"""Parts that drivers of several brokers need alike; a backend may use them or not."""

from __future__ import annotations

import threading

__all__ = ["OpenCount"]


class OpenCount:
    """How many submitted messages have no outcome yet. Any thread; one lock guards the number."""

    def __init__(self) -> None:
        self._none_left = threading.Condition()
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def __int__(self) -> int:
        return self._count

    def add(self, count: int) -> None:
        """So many were submitted."""
        with self._none_left:
            self._count += count

    def remove(self, count: int) -> None:
        """So many have their outcomes."""
        with self._none_left:
            self._count -= count
            if not self._count:
                self._none_left.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until every message has its outcome; False if time ran out."""
        with self._none_left:
            return self._none_left.wait_for(lambda: not self._count, timeout_s)
