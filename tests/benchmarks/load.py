"""What every benchmark sends, and how a measurement is written down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

PADDING = b"x" * 244
HEADERS = {"tenant": "benchmark", "schema": "v1"}


@dataclass(frozen=True)
class Measured:
    """How fast one side was, and how many messages it lost."""

    rate: float
    lost: int


@dataclass
class Watch:
    """Times ``total`` distinct messages from the first batch on, which is not counted itself."""

    total: int
    seen: set[bytes] = field(default_factory=set)
    started: float = 0.0
    ended: float = 0.0
    free: int = 0  # those of the first batch

    def saw(self, bodies: list[bytes]) -> None:
        self.seen.update(body[:12] for body in bodies)
        if not self.started:
            self.started, self.free = time.perf_counter(), len(self.seen)

    @property
    def complete(self) -> bool:
        return len(self.seen) >= self.total

    def stop(self) -> Measured:
        self.ended = time.perf_counter()
        seconds = self.ended - self.started
        return Measured((len(self.seen) - self.free) / seconds, self.total - len(self.seen))


def body(number: int) -> bytes:
    """256 bytes, all different."""
    return b"%012d" % number + PADDING


def load(total: int) -> Iterator[tuple[str, bytes]]:
    """Keys and bodies."""
    for number in range(total):
        yield f"key-{number % 997}", body(number)
