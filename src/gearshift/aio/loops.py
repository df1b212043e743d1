"""Between threads and one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from gearshift._core.clients import Closing
from gearshift.errors import UsageError

__all__ = ["Opening", "Waker", "opened_in_thread", "running_loop", "weakly"]

T = TypeVar("T")


class Closable(Protocol):
    """What an Opening gives."""

    async def close(self) -> object: ...


OpenedT = TypeVar("OpenedT", bound=Closable)
ClosingT = TypeVar("ClosingT", bound=Closing)


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this thread. Raises UsageError where there is none of asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "gearshift.aio needs a running event loop of asyncio",
            hint="call it in a coroutine; with anyio choose its asyncio backend, not trio",
        ) from None


class Waker:
    """Has an event loop call what other threads want: one wake-up for each burst of theirs.

    ``call`` may be called by any thread. A loop that is closed is left alone.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._is_woken = False

    def call(self, call: Callable[[], object]) -> None:
        """Have ``call`` called soon. Never blocks."""
        self._calls.append(call)
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._is_woken = False  # before the calls: what comes from now on wakes again
        while self._calls:
            self._calls.popleft()()


def weakly(method: Callable[[], object]) -> Callable[[], None]:
    """Call ``method`` for as long as its object lives, without keeping it alive."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call


class Opening(Generic[OpenedT]):
    """Something that takes a while to open: ``await`` it, or use it as ``async with``."""

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, OpenedT]]) -> None:
        self._opening = opening
        self._opened: OpenedT | None = None

    def __await__(self) -> Generator[Any, None, OpenedT]:
        return self._opening().__await__()

    async def __aenter__(self) -> OpenedT:
        self._opened = await self._opening()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._opened is not None
        await self._opened.close()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r} of what is not open yet: await it, or use it in async with")


def _forget(future: asyncio.Future[Any]) -> None:
    """Whoever waited was cancelled; its error, if it has one, is nobody's."""
    if not future.cancelled():
        future.exception()


async def opened_in_thread(call: Callable[[], ClosingT]) -> ClosingT:
    """Await ``call`` in a thread; what it opens after this was cancelled is closed at once."""
    loop = asyncio.get_running_loop()
    lock = threading.Lock()
    opened: ClosingT | None = None
    is_cancelled = False

    def opening() -> ClosingT:
        nonlocal opened
        made = call()
        with lock:
            opened = made
            is_late = is_cancelled
        if is_late:  # closed here, as the loop may have ended by now
            made.close()
        return made

    future = loop.run_in_executor(None, opening)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(_forget)
        with lock:
            is_cancelled = True
            early = opened
        if early is not None:
            loop.run_in_executor(None, early.close)
        raise
