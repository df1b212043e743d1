"""Leaving nothing behind: a tool's own channels go with it, also when a signal ends it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeVar

from gearshift.errors import GearshiftError

if TYPE_CHECKING:
    from gearshift.bus import Bus

__all__ = ["Terminated", "delete_channels", "finish", "sigterm_raises"]

T = TypeVar("T")

#: How long a broker may be away before its channels are left to somebody else. Seconds.
PATIENCE_S = 30.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INSIST_S = 5.0


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception: it ends what Ctrl-C would end, and as orderly."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """In this block SIGTERM raises Terminated on the main thread, so that every ``finally`` runs.

    As Ctrl-C raises KeyboardInterrupt. Either is raised again, every few seconds until the block
    has ended and at its end: a client's C code that is interrupted may swallow it, or turn it into
    another error. Does nothing off the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came, ended = threading.Event(), threading.Event()
    first: list[type[KeyboardInterrupt]] = []

    def interrupt(number: int, _frame: object) -> NoReturn:
        kind = KeyboardInterrupt if number == signal.SIGINT else Terminated
        first.append(kind)
        came.set()
        raise kind if number == signal.SIGINT else first[0]

    def insist() -> None:
        came.wait()
        while not ended.wait(_INSIST_S):
            os.kill(os.getpid(), signal.SIGTERM)

    insisting = threading.Thread(target=insist, name="gearshift-insisting", daemon=True)
    insisting.start()
    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    except Exception as error:
        if first:
            raise first[0] from error
        raise
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        ended.set()
        came.set()
        insisting.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    if first:
        raise first[0]


def finish(work: Callable[[], T]) -> T:
    """Do ``work`` to its end and return its result, although Ctrl-C or SIGTERM comes meanwhile.

    What came acts when it is done. A second Ctrl-C is raised at once: somebody insists. Off the
    main thread, where no signal arrives, it is just called.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        return work()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def delete_channels(bus: Bus, *channels: str, patience_s: float = PATIENCE_S) -> list[str]:
    """Delete ``channels``, their dead letters, and what the readers of those put aside.

    Channels that are not there are fine. Blocks: while the broker is away it is asked again, for
    about ``patience_s`` seconds in all. Raises nothing: returns a sentence per channel that stays.
    """
    deadline = time.monotonic() + patience_s
    problems = []
    for channel in channels:
        name: str | None = channel
        for _ in range(3):  # nobody reads the dead letters of dead letters
            if name is None:
                break
            try:
                bus.delete(name, timeout_s=max(0.0, deadline - time.monotonic()))
            except GearshiftError as error:
                problems.append(f"{name} could not be deleted: {error.message}")
            name = bus.config.channel(name).dead_letter_name(name)
    return problems
