"""Closing what was dropped without ``close``, so that nothing that was submitted is lost."""

from __future__ import annotations

import _thread
import threading
import weakref

from gearshift.bus.connections import Connections

__all__ = ["close_abandoned"]

#: How long the end of the process waits for it. Seconds.
_AT_EXIT_S = 60.0


def close_abandoned(connections: Connections) -> None:
    """Close ``connections`` without keeping the caller: it may be any thread, with any lock held.

    At the end of the process there are no new threads, and it is done at once.
    """
    closed = threading.Event()

    def close() -> None:
        try:
            connections.close()
        finally:
            closed.set()

    try:
        # Not by threading, which takes locks that a garbage collection may find held.
        _thread.start_new_thread(close, ())
    except RuntimeError:
        close()
    weakref.finalize(connections, closed.wait, _AT_EXIT_S)  # at exit, if it still runs by then
