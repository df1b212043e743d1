"""pytest hooks: a test that hangs fails alone, and its report says where it and its brokers were.

pytest-timeout reads the limits; what happens at a limit is decided here. A signal interrupts the
main thread, again and again while a teardown hangs too. A call into C that does not return cannot
be interrupted: at twice the limit the process ends, and xdist goes on with another worker.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_timeout import is_debugging

from native_brokers import running_brokers
from support.waiting import FACTOR

_AGAIN = 0.3  # of the limit: between one interruption and the next
_END = 2.0  # limits: then the process ends
_END_UNREPORTED = 3.0  # limits: then it ends, even if C code keeps Python from running at all
_LOG_LINES = 30


class _Watch:
    """Interrupts a phase of one test at its limit, ends the process later. Main thread only."""

    def __init__(self, item: pytest.Item, limit_s: float) -> None:
        self._item = item
        self._limit_s = limit_s
        self._end: threading.Timer | None = None

    def start(self) -> None:
        """Begin to count."""
        self._end = threading.Timer(self._limit_s * _END, self._end_process)
        self._end.daemon = True
        self._end.start()
        faulthandler.dump_traceback_later(
            self._limit_s * _END_UNREPORTED, exit=True, file=self._item.config.stash[_STDERR]
        )
        signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, self._limit_s, self._limit_s * _AGAIN)

    def stop(self) -> None:
        """Let the test be."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _interrupt(self, *_: object) -> None:
        if is_debugging():
            return
        for title, text in _situation():
            self._item.add_report_section("at the time limit", title, text)
        pytest.fail(f"not finished within {self._limit_s:g} s")

    def _end_process(self) -> None:
        if is_debugging():
            return
        parts = [f"\n{self._item.nodeid} cannot be interrupted; this process ends\n"]
        parts += [f"--- {title}\n{text}\n" for title, text in _situation()]
        os.write(self._item.config.stash[_STDERR], "".join(parts).encode())
        os._exit(1)


_STDERR = pytest.StashKey[int]()
_WATCH = pytest.StashKey[_Watch]()


def _situation() -> Iterator[tuple[str, str]]:
    """Titles and texts: the stack of every thread, the end of every running broker's log."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = [
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    ]
    yield "stacks", "\n".join(stacks)
    for broker in running_brokers():
        yield f"log of {broker.name}", broker.log_tail(_LOG_LINES)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the real standard error, before pytest captures it."""
    config.stash[_STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give it back."""
    os.close(config.stash[_STDERR])


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Instead of pytest-timeout's own timer, which leaves the teardown of a failed test alone."""
    item.stash[_WATCH] = _Watch(item, settings.timeout * FACTOR)
    return True


def pytest_timeout_cancel_timer() -> bool:
    """Each phase stops the watch when it ends."""
    return True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Set-up, the test and its teardown have the whole limit each."""
    return (yield from _watched(item))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """See above."""
    return (yield from _watched(item))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """See above."""
    return (yield from _watched(item))


def _watched(item: pytest.Item) -> Iterator[None]:
    """Only within a phase: an interruption of pytest's own code would end the whole worker."""
    watch = item.stash.get(_WATCH, None)
    if watch is None:
        return (yield)
    watch.start()
    try:
        return (yield)
    finally:
        watch.stop()
