"""One event loop for all async handlers of a worker, on a thread of its own or its service's.

Clients that are bound to a loop (database pools, HTTP sessions) live as long as it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from gearshift._core.clients import refuse_in_event_loop

__all__ = ["EventLoop"]

T = TypeVar("T")

log = logging.getLogger("gearshift.worker")

_CLOSE_TIMEOUT_S = 5.0
_CANCEL_TIMEOUT_S = 1.0


class EventLoop:
    """Starts with the first awaitable that is waited for. Any thread but the loop's.

    ``running`` is a loop that runs already and is somebody else's: of that only what was begun here
    is ended. If a loop of its own ends before ``close``, every ``wait`` raises why, and ``on_end``
    is called with it on the loop's thread. ``_lock`` guards the loop, its thread and ``_ended_by``;
    ``_tasks`` are touched on the loop.
    """

    def __init__(
        self,
        on_end: Callable[[BaseException], None] = lambda _: None,
        running: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._on_end = on_end
        self._lock = threading.Lock()
        self._loop = running
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waited_for: set[Future[Any]] = set()
        self._ended_by: Exception | None = None
        self._closing = False

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """Block until ``awaitable`` is done; returns what it returns and raises what it raises."""
        result, error = self.begin(_ended(awaitable)).result()
        if error is not None:
            raise error
        return result

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Have ``coroutine`` run; the future ends with it, or with the loop."""
        with self._lock:
            if self._ended_by is not None:
                coroutine.close()  # nobody will await it
                raise self._ended_by
            begun = self._begun(coroutine)
            future = asyncio.run_coroutine_threadsafe(begun, self._started())
            self._waited_for.add(future)
        future.add_done_callback(self._waited_for.discard)
        return future

    def refuse(self, call: str) -> None:
        """Raise BlockingInEventLoop if this thread runs the loop, for which ``call`` waits."""
        if self._loop is not None and asyncio._get_running_loop() is self._loop:
            refuse_in_event_loop(call, instead="a thread")

    def close(self) -> None:
        """Cancel what still runs, and stop the loop. Blocks for some 5 s if that blocks it."""
        if self._loop is None:
            return
        if self._thread is None or self._thread.is_alive():
            cancelling = asyncio.run_coroutine_threadsafe(self._cancel(), self._loop)
            with contextlib.suppress(TimeoutError):
                cancelling.result(_CLOSE_TIMEOUT_S)
        if self._thread is None:
            return
        self._closing = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _begun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = cast("asyncio.Task[T]", asyncio.current_task())
        self._tasks.add(task)
        try:
            return await coroutine
        finally:
            self._tasks.discard(task)

    async def _cancel(self) -> None:
        """Cancel what runs here, and give it a moment to end; on a loop of its own that is all."""
        tasks = self._tasks if self._thread is None else asyncio.all_tasks()
        others = tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_CANCEL_TIMEOUT_S)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._run, args=(self._loop,), name="gearshift-asyncio", daemon=True
            )
            self._thread.start()
        return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._closing:
            try:
                loop.run_forever()
            except Exception as error:
                self._end(error)
                return
            except BaseException as error:
                # A task that raises this ends an asyncio loop, and this one is everybody's.
                log.error("a task that a handler left behind raised %r", error)

    def _end(self, error: Exception) -> None:
        with self._lock:
            self._ended_by = error
            waited_for = list(self._waited_for)
        self._on_end(error)
        for future in waited_for:
            if not future.done():
                future.set_exception(error)


async def _ended(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Return its result or its error: SystemExit, raised in a task, would end the loop."""
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error
