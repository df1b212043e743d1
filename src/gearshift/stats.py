"""What a bus counts of its work: plain numbers, added up where they arise, read at any time.

Times are seconds. What says how things are now (``in_flight``, ``unsettled``, ``silent_s`` ...) is
zero for what is closed; everything else only ever grows while a bus is open.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BOUNDS_S", "ReceiveStats", "SendStats", "Stats", "Timings"]

#: Upper ends of the buckets of ``Timings``; one more has no end. Seconds.
BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


@dataclass(slots=True)
class Timings:
    """How long something took each time: how often per bucket of ``BOUNDS_S``, and in all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """It took ``seconds``, so many times."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += times
        self.total_s += seconds * times

    @property
    def count(self) -> int:
        """How often it was measured."""
        return sum(self.counts)

    def __add__(self, other: Timings) -> Timings:
        both = zip(self.counts, other.counts, strict=True)
        return Timings([mine + its for mine, its in both], self.total_s + other.total_s)


@dataclass(slots=True, kw_only=True)
class SendStats:
    """What the producers of one channel have done; dead letters are sends to their channel.

    ``resent`` are those of ``stored`` that were sent again after a lost connection, and may be
    there twice. ``failed`` counts by the name of the error. ``took`` is from submission to result.
    ``silent_s`` is for how long one of them has had no connection (``disconnected`` says why), or
    its connection no answer; ``blocked`` why the broker takes nothing at present.
    """

    channel: str
    stored: int = 0
    resent: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    took: Timings = field(default_factory=Timings)
    reconnects: int = 0
    in_flight: int = 0
    silent_s: float = 0.0
    disconnected: str | None = None
    blocked: str | None = None

    def __add__(self, other: SendStats) -> SendStats:
        return SendStats(
            channel=self.channel,
            stored=self.stored + other.stored,
            resent=self.resent + other.resent,
            failed=self.failed + other.failed,
            took=self.took + other.took,
            reconnects=self.reconnects + other.reconnects,
            in_flight=self.in_flight + other.in_flight,
            silent_s=max(self.silent_s, other.silent_s),
            disconnected=self.disconnected or other.disconnected,
            blocked=self.blocked or other.blocked,
        )


@dataclass(slots=True, kw_only=True)
class ReceiveStats:
    """What the consumers of one group of a channel have done; ``group`` is None for ephemeral ones.

    ``settled`` counts by outcome: "ack", "retry", "reject"; ``stale`` are settlements that came too
    late. ``skipped`` messages of a stream were deleted by retention before they were read, where
    the broker lets us know. ``handled`` times an App's handlers, by outcome. ``silent_s`` is for
    how long one of them has had no connection (``disconnected`` says why), or its connection no
    answer; ``stalled_s`` for how long one has had all that prefetch allows in hand without anything
    being settled. ``error`` has ended one for good. ``unstored`` messages are kept by their
    consumers because their retry or dead letter cannot be stored; ``obstacle`` is why.
    """

    channel: str
    group: str | None
    delivered: int = 0
    redelivered: int = 0
    settled: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    skipped: int = 0
    handled: dict[str, Timings] = field(default_factory=dict)
    reconnects: int = 0
    consumers: int = 0
    unsettled: int = 0
    silent_s: float = 0.0
    disconnected: str | None = None
    stalled_s: float = 0.0
    error: str | None = None
    unstored: int = 0
    obstacle: str | None = None

    def __add__(self, other: ReceiveStats) -> ReceiveStats:
        return ReceiveStats(
            channel=self.channel,
            group=self.group,
            delivered=self.delivered + other.delivered,
            redelivered=self.redelivered + other.redelivered,
            settled=self.settled + other.settled,
            stale=self.stale + other.stale,
            skipped=self.skipped + other.skipped,
            handled=_both(self.handled, other.handled),
            reconnects=self.reconnects + other.reconnects,
            consumers=self.consumers + other.consumers,
            unsettled=self.unsettled + other.unsettled,
            silent_s=max(self.silent_s, other.silent_s),
            disconnected=self.disconnected or other.disconnected,
            stalled_s=max(self.stalled_s, other.stalled_s),
            error=self.error or other.error,
            unstored=self.unstored + other.unstored,
            obstacle=self.obstacle or other.obstacle,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One moment of a bus: an entry per channel, and per channel and group."""

    sending: tuple[SendStats, ...]
    receiving: tuple[ReceiveStats, ...]


def _both(one: Mapping[str, Timings], other: Mapping[str, Timings]) -> dict[str, Timings]:
    names = dict.fromkeys([*one, *other])
    return {name: one.get(name, Timings()) + other.get(name, Timings()) for name in names}
