"""Being told to stop: by a signal, or by a supervisor that closes its end of a pipe."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

__all__ = ["STOP_SIGNALS", "StopRequest"]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """True from the first SIGTERM or SIGINT on, or once ``supervisor`` is closed.

    A second signal calls ``at_once`` and ends the process. Main thread only, in a ``with`` block.
    """

    def __init__(
        self, supervisor: Connection | None = None, at_once: Callable[[], None] = lambda: None
    ) -> None:
        self._supervisor = supervisor
        self._at_once = at_once
        self._signalled = False
        self._stack = contextlib.ExitStack()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s``; True as soon as it is time to stop, and from then on."""
        sources: list[int | Connection] = [self._read]
        if self._supervisor is not None:
            sources.append(self._supervisor)
        return bool(wait(sources, timeout_s))

    def __enter__(self) -> StopRequest:
        # A pipe, because no lock may be taken in a signal's handler.
        self._read, self._write = os.pipe()
        self._stack.callback(os.close, self._read)
        self._stack.callback(os.close, self._write)
        for number in STOP_SIGNALS:
            self._stack.callback(signal.signal, number, signal.signal(number, self._on_signal))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._signalled:
            self._at_once()
            os._exit(128 + number)
        self._signalled = True
        os.write(self._write, b".")
