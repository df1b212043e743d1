"""Worker threads that work until they are told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Work", "WorkerThread", "working"]

#: Works until the event is set.
Work: TypeAlias = Callable[[threading.Event], None]


class WorkerThread(threading.Thread):
    """Runs ``work``, at once. ``error`` is what ended it early."""

    def __init__(self, work: Work, name: str | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._work = work
        self.start()

    def run(self) -> None:
        """See threading.Thread."""
        try:
            self._work(self.stop)
        except Exception as error:
            self.error = error


@contextmanager
def working(*works: Work, timeout_s: float | None = None) -> Iterator[None]:
    """Run ``works`` while the block runs, then stop them and wait ``timeout_s`` for each.

    Raises what ended one of them early, unless the block itself raised.
    """
    threads = [WorkerThread(work) for work in works]
    try:
        yield
    finally:
        for thread in threads:
            thread.stop.set()
        for thread in threads:
            thread.join(timeout_s)
    for thread in threads:
        if thread.error is not None:
            raise thread.error
