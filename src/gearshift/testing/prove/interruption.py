"""Interrupting a handler at one of its lines: to let its process die there, or to wait."""

from __future__ import annotations

import functools
import linecache
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from gearshift import plugins

__all__ = ["Died", "Paused", "counting_lines", "dying_at", "reaching"]

T = TypeVar("T")

#: How long a second handler may stand still, as behind a lock of the first, until that goes on.
_PATIENCE_S = 0.05

_LIBRARIES = tuple({*sysconfig.get_paths().values()} - {sysconfig.get_path("data")})


class Died(BaseException):
    """Raised inside a handler in place of the death of its process: nothing catches it."""


@contextmanager
def dying_at(line: int) -> Iterator[None]:
    """Raise Died before the user's line number ``line`` (from 0) that runs inside the block."""

    def die() -> None:
        raise Died

    with reaching(line, die):
        yield


def counting_lines(function: Callable[[], T]) -> tuple[T, int]:
    """What ``function`` returns, and how many lines of the user's it ran on this thread."""
    with reaching(sys.maxsize, lambda: None) as passed:
        result = function()
    return result, passed()


class Paused:
    """A function on a thread of its own that waits at its line number ``line``, from 0."""

    def __init__(self, function: Callable[[], T], line: int) -> None:
        self._function = function
        self._line = line
        self._changed = threading.Event()  # it waits, or has ended
        self._goes_on = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.result: Any = None

    def meanwhile(self, other: Callable[[], T]) -> tuple[Any, T]:
        """Run ``other`` while it waits, on another thread, then let it end; both results."""
        results: list[T] = []
        second = threading.Thread(target=lambda: results.append(other()), daemon=True)
        self._thread.start()
        self._changed.wait()
        second.start()
        second.join(_PATIENCE_S)
        self._goes_on.set()
        self._thread.join()
        second.join()
        return self.result, results[0]

    def _run(self) -> None:
        with reaching(self._line, self._wait):
            self.result = self._function()
        self._changed.set()

    def _wait(self) -> None:
        self._changed.set()
        self._goes_on.wait()


@contextmanager
def reaching(line: int, act: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Call ``act`` once this thread reaches the user's line number ``line`` inside the block.

    Gives a function that says how many it has passed.
    """
    left = line
    at: dict[FrameType, int] = {}

    def in_frame(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if event == "line":
            before_this, at[frame] = at.get(frame, 0), frame.f_lineno
            if _leaves_with(frame, before_this):
                return in_frame
            left -= 1
            if left < 0:
                sys.settrace(before)
                frame.f_trace = None
                act()
                return None
        return in_frame

    def entering(frame: FrameType, event: str, arg: object) -> Any:
        return in_frame if left >= 0 and _is_users(frame) else None

    before = sys.gettrace()
    sys.settrace(entering)
    try:
        yield lambda: line - left
    finally:
        sys.settrace(before)


def _leaves_with(frame: FrameType, line_before: int) -> bool:
    """True where a ``with`` ends: an error there would leave its lock or its file as it is."""
    if frame.f_lineno >= line_before:
        return False
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return text.lstrip().startswith(("with ", "async with "))


def _is_users(frame: FrameType) -> bool:
    if frame.f_code.co_filename.startswith(("<", *_LIBRARIES)):
        return False
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package not in _ours()


@functools.cache
def _ours() -> set[str]:
    """Our packages, also where they are not installed among the libraries."""
    return {"gearshift", *(entry.module.partition(".")[0] for entry in plugins.available())}
