"""A TCP proxy that can be cut, held, slowed and closed: the network between clients and a broker.

It runs on an event loop in a thread of its own. Only 127.0.0.1 is listened on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Proxy"]

T = TypeVar("T")

_CHUNK = 65536
_CONNECT_S = 5.0


class Proxy:
    """Passes connections on to ``target`` (host, port). Any thread; calls take effect at once.

    ``port`` 0 picks a free one. Close it, or use it in a ``with`` block.
    """

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        self.target = target
        self.cuts = 0  #: connections that were reset
        self._open: set[_Connection] = set()
        self._refused = False
        self._cut_after: int | None = None
        self._bytes_per_s: float | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        for event in self._flowing.values():
            event.set()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="gearshift-proxy", daemon=True
        )
        self._thread.start()
        self._server = self._await(asyncio.start_server(self._serve, "127.0.0.1", port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def cut(self) -> int:
        """Reset every open connection; how many there were."""
        return self._call(self._cut)

    def cut_after(self, answered_bytes: int) -> None:
        """Reset each connection once it has carried so many more bytes of answers, this once."""
        self._call(lambda: setattr(self, "_cut_after", answered_bytes))

    def hold(self, *, answers_only: bool = False) -> None:
        """Swallow nothing but pass nothing on: a black hole, of both directions or of answers."""
        self._call(lambda: self._stop_flow(answers_only))

    def release(self) -> None:
        """Pass on what was held, and what comes."""
        self._call(self._resume_flow)

    def slow(self, bytes_per_s: float | None) -> None:
        """Limit each direction of each connection; None for no limit."""
        self._call(lambda: setattr(self, "_bytes_per_s", bytes_per_s))

    def refuse(self, refused: bool) -> None:
        """Reset new connections at once, as long as ``refused``."""
        self._call(lambda: setattr(self, "_refused", refused))

    def close(self) -> None:
        """Reset everything and stop listening. Idempotent."""
        if self._loop.is_closed():
            return
        self._await(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── on the loop ──

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._refused:
                await self._pass_on(reader, writer)
        except OSError:
            pass  # the target is down: what comes is reset
        finally:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_CONNECT_S):
            answers, requests = await asyncio.open_connection(*self.target)
        connection = _Connection(writer, requests)
        self._open.add(connection)
        connection.tasks = [
            asyncio.ensure_future(self._forward("requests", reader, requests)),
            asyncio.ensure_future(self._forward("answers", answers, writer)),
        ]
        try:
            await asyncio.wait(connection.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.reset()
            self._open.discard(connection)

    async def _forward(
        self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing[direction].wait()
                if self._bytes_per_s:
                    await asyncio.sleep(len(data) / self._bytes_per_s)
                if direction == "answers" and self._is_due(len(data)):
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()

    def _is_due(self, answered: int) -> bool:
        if self._cut_after is None:
            return False
        self._cut_after -= answered
        if self._cut_after > 0:
            return False
        self._cut_after = None
        return True

    def _cut(self) -> int:
        count = len(self._open)
        for connection in list(self._open):
            connection.reset()
        self.cuts += count
        return count

    def _stop_flow(self, answers_only: bool) -> None:
        self._flowing["answers"].clear()
        if not answers_only:
            self._flowing["requests"].clear()

    def _resume_flow(self) -> None:
        for event in self._flowing.values():
            event.set()

    async def _shut(self) -> None:
        self._refused = True
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            self._cut()
            await asyncio.wait(others, timeout=0.01)
        self._server.close()  # last: asyncio leaks what it is just accepting for a closed server

    # ── from other threads ──

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._await(call())

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


class _Connection:
    """Both sides of one connection."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.tasks: list[asyncio.Future[None]] = []

    def reset(self) -> None:
        for task in self.tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
