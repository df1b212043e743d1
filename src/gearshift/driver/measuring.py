"""What is sent when speed is measured, and how it is counted and timed.

The same for Gearshift and for each broker's own client, so that they can be compared: bodies that
are all different, a key, two headers; every message confirmed, and settled one by one.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "HEADERS",
    "IDLE_S",
    "PREFETCH",
    "ByHand",
    "Load",
    "RawClient",
    "Received",
    "Sample",
    "Stopwatch",
    "Timer",
    "by_connection",
    "in_threads",
    "timed",
]

#: Of each message.
HEADERS = {"tenant": "benchmark", "schema": "v1"}
#: What a receiving side holds at most.
PREFETCH = 500
#: Nothing came for so long: the rest is lost. Seconds.
IDLE_S = 20.0


@dataclass(frozen=True)
class Load:
    """``total`` messages of ``size`` bytes, each sent by one of ``threads`` where they are sent one
    at a time. ``pace`` is messages a second end to end: few enough that nothing queues up."""

    total: int
    size: int = 256
    threads: int = 1
    pace: float = 200.0

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Keys and bodies."""
        for number in range(self.total):
            yield f"key-{number % 997}", (b"%012d" % number).ljust(self.size, b"x")


@dataclass(frozen=True)
class Sample:
    """What was measured once: messages, messages a second, or milliseconds from before the send to
    the arrival. ``cpu_us`` is the time of this process's processor for a message."""

    done: int
    rate: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_us: float = field(default=0.0, kw_only=True)


class ByHand(Protocol):
    """A client's works; the first line of each docstring tells people how it goes."""

    def send(self, load: Load) -> Sample:
        """One at a time, by ``Load.threads``."""

    def send_many(self, load: Load) -> Sample:
        """All at once."""

    def receive(self, load: Load) -> Sample:
        """What ``send_many`` has stored."""

    def end_to_end(self, load: Load) -> Sample:
        """At the load's pace."""


@dataclass(frozen=True)
class RawClient:
    """A broker's own client, used by hand in the quickest safe way that its documentation shows.

    Its ``works`` raise the client's errors. ``close`` removes what deleting the channel leaves.
    """

    name: str
    works: ByHand
    close: Callable[[], None] = lambda: None


class Timer:
    """Measures from now on."""

    def __init__(self) -> None:
        self._cpu, self._started = time.process_time(), time.perf_counter()

    def sample(self, done: int, timed: int | None = None) -> Sample:
        """What ``done`` messages took, or ``timed`` of them, which were measured."""
        seconds = time.perf_counter() - self._started
        count = done if timed is None else timed
        cpu_us = (time.process_time() - self._cpu) / max(1, count) * 1e6
        return Sample(done, count / seconds, cpu_us=cpu_us)


def timed(done: Callable[[], int]) -> Sample:
    """The rate of ``done``, which returns how many messages it has sent."""
    timer = Timer()
    return timer.sample(done())


def in_threads(send: Callable[[str, bytes], object], load: Load) -> Sample:
    """``send`` from each of the load's threads, which returns once that message is stored.

    Raises the first error of any of them; the others then end after their message.
    """
    source, lock = iter(load), threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                with lock:
                    one = next(source, None)
                if one is None:
                    return
                send(*one)
        except BaseException as error:
            errors.append(error)

    def run() -> int:
        threads = [threading.Thread(target=work) for _ in range(load.threads - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return load.total

    return timed(run)


def by_connection(
    connect: Callable[[], AbstractContextManager[Any]],
    send: Callable[[Any, str, bytes], object],
    load: Load,
) -> Sample:
    """As ``in_threads``, with a connection for each thread, made before the time begins."""
    with ExitStack() as stack:
        idle = deque(stack.enter_context(connect()) for _ in range(load.threads))

        def one(key: str, body: bytes) -> None:
            connection = idle.pop()
            send(connection, key, body)
            idle.append(connection)

        return in_threads(one, load)


class Received:
    """Counts distinct messages, and times them from the first on, whose way is not measured."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seen: set[bytes] = set()
        self._free = 0
        self._timer: Timer | None = None

    def add(self, *bodies: bytes | None) -> None:
        """Count what arrived together."""
        self.seen.update((body or b"")[:12] for body in bodies)
        if self._timer is None:
            self._timer, self._free = Timer(), len(self.seen)

    @property
    def wanted(self) -> int:
        """How many to ask for: no more than are left, as some clients wait for all of them."""
        return min(PREFETCH, max(1, self.total - len(self.seen))) if self.seen else 1

    @property
    def complete(self) -> bool:
        """Whether all have come."""
        return len(self.seen) >= self.total

    def sample(self) -> Sample:
        """What it was until now. Call it once all is settled."""
        timer = self._timer or Timer()
        return timer.sample(len(self.seen), len(self.seen) - self._free)


class Stopwatch:
    """Times messages from just before their send to their arrival, at the load's pace."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._ms: list[float] = []
        self._ready = threading.Event()
        self._last = time.monotonic()
        self._failed: BaseException | None = None

    def run(self, send: Callable[[bytes], Any], serve: Callable[[], Any]) -> Sample:
        """``send`` here; ``serve`` in another thread: it calls ``ready`` once it receives, then
        ``arrived`` until ``ended``, which it looks at every second or so. Raises their errors."""
        receiver = threading.Thread(target=self._guarded, args=(serve,))
        receiver.start()
        try:
            self._ready.wait(IDLE_S)
            self._send(send)
        except BaseException as error:
            self._failed = self._failed or error
        receiver.join()
        if self._failed is not None:
            raise self._failed
        cuts = statistics.quantiles(self._ms, n=100) if len(self._ms) > 1 else [0.0] * 99
        return Sample(len(self._ms), p50_ms=cuts[49], p99_ms=cuts[98])

    def _send(self, send: Callable[[bytes], Any]) -> None:
        self._last = time.monotonic()
        begin = time.perf_counter()
        for number in range(self._load.total):
            if self._failed is not None:
                return
            time.sleep(max(0.0, begin + number / self._load.pace - time.perf_counter()))
            send((b"%020d" % time.perf_counter_ns()).ljust(self._load.size, b"x"))

    def _guarded(self, serve: Callable[[], Any]) -> None:
        try:
            serve()
        except BaseException as error:
            self._failed = self._failed or error
        finally:
            self._ready.set()

    def ready(self) -> None:
        """The receiver is there: sending begins."""
        self._ready.set()

    def arrived(self, body: bytes | None) -> None:
        """A message has come."""
        self._last = time.monotonic()
        self._ms.append((time.perf_counter_ns() - int((body or b"")[:20])) / 1e6)

    @property
    def ended(self) -> bool:
        """Whether all have come, or no more will."""
        idle = time.monotonic() - self._last > 2 * IDLE_S
        return len(self._ms) >= self._load.total or self._failed is not None or idle
