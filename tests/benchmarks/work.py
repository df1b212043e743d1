"""What peers of Gearshift are given besides what raw clients use (gearshift.driver.measuring)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice

from gearshift.driver.measuring import HEADERS, IDLE_S, Load, Received, Sample, Timer, timed

__all__ = [
    "HEADERS",
    "IDLE_S",
    "Load",
    "Place",
    "Received",
    "Sample",
    "gathered",
    "timed",
    "timed_async",
]

#: Publishes that an async client awaits together.
_GATHERED = 1000


@dataclass(frozen=True)
class Place:
    """Where to send and receive: a broker's address, or a file, and the name of the channel."""

    url: str
    name: str


async def timed_async(done: Callable[[], Awaitable[int]]) -> Sample:
    """The rate of a coroutine function, which returns how many messages it has sent."""
    timer = Timer()
    return timer.sample(await done())


async def gathered(load: Load, publish: Callable[[str, bytes], Awaitable[object]]) -> Sample:
    """The rate of ``publish``, which is given a key and a body, a thousand awaited at a time."""

    async def run() -> int:
        source = iter(load)
        while part := list(islice(source, _GATHERED)):
            await asyncio.gather(*(publish(key, body) for key, body in part))
        return load.total

    return await timed_async(run)
