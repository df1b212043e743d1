"""What every client sends, and how it counts and times what it did."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

HEADERS = {"tenant": "benchmark", "schema": "v1"}
THREADS = 32
#: Publishes that an async client awaits together.
GATHERED = 1000
#: End to end, messages a second: far below what any client can do.
PACE = 500
#: Nothing came for so long: the rest is lost.
IDLE_S = 20.0


@dataclass(frozen=True)
class Place:
    """Where to send and receive: a broker's address, or a file, and the name of the channel."""

    url: str
    name: str
    size: int = 256  # bytes of a body


@dataclass(frozen=True)
class Sample:
    """What one client did in one round: messages, messages a second or milliseconds end to end."""

    done: int
    rate: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_us: float = field(default=0.0, kw_only=True)  # of its process, a message


def body(number: int, size: int = 256) -> bytes:
    """All different: the number, then padding."""
    return (b"%012d" % number).ljust(size, b"x")


def load(place: Place, total: int) -> Iterator[tuple[str, bytes]]:
    """Keys and bodies."""
    for number in range(total):
        yield f"key-{number % 997}", body(number, place.size)


def timed(done: Callable[[], int]) -> Sample:
    """The rate of ``done``, which returns how many messages it has sent."""
    started = time.perf_counter()
    count = done()
    return Sample(count, count / (time.perf_counter() - started))


async def timed_async(done: Callable[[], Awaitable[int]]) -> Sample:
    """The same for a coroutine function."""
    started = time.perf_counter()
    count = await done()
    return Sample(count, count / (time.perf_counter() - started))


async def gathered(
    place: Place, total: int, publish: Callable[[str, bytes], Awaitable[object]]
) -> Sample:
    """The rate of ``publish``, which is given a key and a body, a thousand awaited at a time."""

    async def run() -> int:
        source = load(place, total)
        while part := list(islice(source, GATHERED)):
            await asyncio.gather(*(publish(key, body) for key, body in part))
        return total

    return await timed_async(run)


def in_threads(send: Callable[[str, bytes], bool], place: Place, total: int) -> Sample:
    """``send`` from many threads, each waiting for its own; returns whether one is stored."""
    source, lock = load(place, total), threading.Lock()
    stored = [0] * THREADS

    def work(number: int) -> None:
        while True:
            with lock:
                one = next(source, None)
            if one is None:
                return
            stored[number] += send(*one)

    def run() -> int:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(stored)

    return timed(run)


@dataclass
class Received:
    """Counts distinct messages, and times them from the first batch on, which is not counted."""

    total: int
    seen: set[bytes] = field(default_factory=set)
    started: float = 0.0
    free: int = 0

    def add(self, *bodies: bytes | None) -> None:
        self.seen.update((body or b"")[:12] for body in bodies)
        if not self.started:
            self.started, self.free = time.perf_counter(), len(self.seen)

    @property
    def complete(self) -> bool:
        return len(self.seen) >= self.total

    def sample(self) -> Sample:
        seconds = time.perf_counter() - self.started
        return Sample(len(self.seen), (len(self.seen) - self.free) / seconds)


class Stopwatch:
    """Times messages from just before their send to their arrival, at PACE a second."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.ms: list[float] = []

    def run(self, send: Callable[[bytes], Any], serve: Callable[[], Any]) -> Sample:
        """``send`` here; in another thread ``serve``, which calls ``arrived`` until ``ended``."""
        receiver = threading.Thread(target=serve)
        receiver.start()
        begin = time.perf_counter() + 0.5
        for number in range(self.total):
            time.sleep(max(0.0, begin + number / PACE - time.perf_counter()))
            send(b"%020d" % time.perf_counter_ns() + b"x" * 236)
        receiver.join(IDLE_S)
        cuts = statistics.quantiles(self.ms, n=100)
        return Sample(len(self.ms), p50_ms=cuts[49], p99_ms=cuts[98])

    def arrived(self, body: bytes | None) -> None:
        self.ms.append((time.perf_counter_ns() - int((body or b"")[:20])) / 1e6)

    @property
    def ended(self) -> bool:
        return len(self.ms) >= self.total
