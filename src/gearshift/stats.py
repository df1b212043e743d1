"""Counts of what a bus does: plain numbers, added up where they arise, read at any time.

Times are seconds. Fields that say how things are now (``in_flight``, ``unsettled``, ``silent_s``)
are zero for what is closed; the others only grow while a bus is open.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Self

__all__ = ["BOUNDS_S", "ReceiveStats", "SendStats", "Stats", "Timings"]

#: Upper ends of the buckets of ``Timings``; one more has no end. Seconds.
BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


@dataclass(slots=True)
class Timings:
    """Durations of something: how many in each bucket of ``BOUNDS_S``, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count ``seconds``, so many times."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += times
        self.total_s += seconds * times

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    def __add__(self, other: Timings) -> Timings:
        both = zip(self.counts, other.counts, strict=True)
        return Timings([mine + its for mine, its in both], self.total_s + other.total_s)


@dataclass(slots=True, kw_only=True)
class _ChannelStats:
    channel: str
    reconnects: int = 0
    silent_s: float = 0.0
    disconnected: str | None = None

    def __add__(self, other: Self) -> Self:
        """Counts are added up; of seconds the longest remains, of texts the first."""
        return type(self)(
            **{
                each.name: _both(getattr(self, each.name), getattr(other, each.name))
                for each in fields(self)
            }
        )


@dataclass(slots=True, kw_only=True)
class SendStats(_ChannelStats):
    """Work of the producers of one channel; dead letters are sends to their channel.

    ``resent`` are those of ``stored`` that were sent again after a lost connection, and may be
    there twice. ``failed`` counts by the name of the error. ``took`` is from submission to result.
    ``silent_s`` is for how long one of them has had no connection (``disconnected`` says why), or
    its connection no answer; ``blocked`` why the broker takes nothing at present.
    """

    stored: int = 0
    resent: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    took: Timings = field(default_factory=Timings)
    in_flight: int = 0
    blocked: str | None = None


@dataclass(slots=True, kw_only=True)
class ReceiveStats(_ChannelStats):
    """Work of the consumers of one group of a channel; ``group`` is None for ephemeral ones.

    ``settled`` counts by outcome: "ack", "retry", "reject"; ``stale`` are settlements that came too
    late. ``skipped`` messages were deleted by retention, or by others, before they were read, where
    the broker lets us know. ``handled`` times an App's handlers, by outcome. ``silent_s`` and
    ``disconnected`` are as in SendStats. ``in_hand`` are handed out and not settled; an App's
    handlers take ``handler_limit`` at once (0 without handlers). ``stalled_s`` is for how long one
    has had all in hand that prefetch allows, or its handlers take, without anything being settled.
    ``longest_s`` is for how long one delivery has been in hand. ``error`` has ended one
    for good. ``unstored`` messages are kept by their consumers because their retry or dead letter
    cannot be stored; ``obstacle`` is why.
    """

    group: str | None
    delivered: int = 0
    redelivered: int = 0
    settled: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    skipped: int = 0
    handled: dict[str, Timings] = field(default_factory=dict)
    consumers: int = 0
    unsettled: int = 0
    in_hand: int = 0
    handler_limit: int = 0
    longest_s: float = 0.0
    stalled_s: float = 0.0
    error: str | None = None
    unstored: int = 0
    obstacle: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One moment of a bus: an entry per channel, and per channel and group."""

    sending: tuple[SendStats, ...]
    receiving: tuple[ReceiveStats, ...]


def _both(one: Any, other: Any) -> Any:
    if isinstance(one, float):
        return max(one, other)
    if isinstance(one, int | Counter | Timings):
        return one + other
    if isinstance(one, dict):
        return {name: one.get(name, Timings()) + other.get(name, Timings()) for name in one | other}
    return one or other
