"""The kit's clients over ``gearshift.aio``: each call blocks until an event loop has done it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any, Self, TypeVar

from gearshift import aio
from gearshift.bus import Bus
from gearshift.conformance import Harness
from gearshift.conformance.history import History
from gearshift.driver.helpers import Wrapper

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all clients of this process, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="kit-loop", daemon=True).start()
    return loop


def started(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop())


async def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call ``function`` on the loop, and await what it gives."""
    return await function(*arguments, **options)


class Awaited(Wrapper):
    """Calls the coroutine functions of ``inner`` and waits for their results."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if not asyncio.iscoroutinefunction(found):
            return found
        return lambda *arguments, **options: started(_call(found, *arguments, **options)).result()


class _Client(Awaited):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Producer(_Client):
    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        """A send that is not waited for: a task of the loop."""
        return started(_call(self.inner.send, *arguments, **options))


class Consumer(_Client):
    def receive(self, *arguments: Any, **options: Any) -> list[Awaited]:
        return [Awaited(one) for one in started(self.inner.receive(*arguments, **options)).result()]

    def iterate(self, *, idle_timeout_s: float | None = None) -> Iterator[Awaited]:
        iterator = self.inner.iterate(idle_timeout_s=idle_timeout_s)
        while True:
            try:
                yield Awaited(started(_call(anext, iterator)).result())
            except StopAsyncIteration:
                return


class AsyncBus(Wrapper):
    """A bus whose producers and consumers are those of its async face."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self._face = aio.Bus(bus)

    def producer(self, *arguments: Any, **options: Any) -> Producer:
        return Producer(started(_call(self._face.producer, *arguments, **options)).result())

    def consumer(self, *arguments: Any, **options: Any) -> Consumer:
        return Consumer(started(_call(self._face.consumer, *arguments, **options)).result())

    def __enter__(self) -> AsyncBus:
        return self

    def __exit__(self, *_: object) -> None:
        self.inner.close()


@dataclass(frozen=True, kw_only=True)
class AsyncHarness(Harness):
    """A harness whose clients are coroutines."""

    def connect(
        self, channels: Mapping[str, Mapping[str, object]], history: History | None = None
    ) -> Any:
        return AsyncBus(super().connect(channels, history))


def awaited(harness: Harness) -> AsyncHarness:
    """``harness`` with coroutines for clients; its column says so."""
    fields = {name: getattr(harness, name) for name in Harness.__dataclass_fields__}
    edition = " ".join(filter(None, (harness.edition, "async")))
    return AsyncHarness(**(fields | {"edition": edition}))
