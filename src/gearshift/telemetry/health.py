"""Whether a bus does its work: not just connected, but consuming and getting on."""

from __future__ import annotations

from collections.abc import Iterator

from gearshift.bus import Bus
from gearshift.stats import ReceiveStats, SendStats

__all__ = ["problems"]

#: Reconnecting takes seconds; a connection that is gone for longer is a problem.
SILENT_AFTER_S = 15.0

#: A handler may take so long where the channel sets no ``max_processing_s``.
STALLED_AFTER_S = 300.0


def problems(bus: Bus) -> list[str]:
    """What is wrong with ``bus`` now, a sentence each; an empty list if it is healthy.

    A consumer has a problem if it has ended, if its connection has been gone or silent for 15 s, or
    if nothing was settled for longer than ``max_processing_s`` (or 300 s) while all that prefetch
    allows is in hand. A producer has one if its connection has been gone for 15 s or the broker
    takes nothing. Any thread; does not block and asks no broker.
    """
    stats = bus.stats()
    found = [problem for sending in stats.sending for problem in _of_sending(sending)]
    for receiving in stats.receiving:
        limit_s = bus.config.channel(receiving.channel).max_processing_s or STALLED_AFTER_S
        found += _of_receiving(receiving, limit_s)
    return [bus.config.masked(problem) for problem in found]


def _of_sending(stats: SendStats) -> Iterator[str]:
    where = f"channel {stats.channel!r}"
    if stats.disconnected_s > SILENT_AFTER_S:
        yield f"{where}: no connection for sending since {stats.disconnected_s:.0f} s"
    if stats.blocked is not None:
        yield f"{where}: the broker takes no messages: {stats.blocked}"


def _of_receiving(stats: ReceiveStats, limit_s: float) -> Iterator[str]:
    where = f"channel {stats.channel!r}, group {stats.group!r}"
    if stats.error is not None:
        yield f"{where}: a consumer has ended: {stats.error}"
    elif stats.silent_s > SILENT_AFTER_S:
        yield f"{where}: nothing was heard from the broker for {stats.silent_s:.0f} s"
    if stats.stalled_s > limit_s:
        yield (
            f"{where}: all {stats.unsettled} deliveries that prefetch allows are in hand and none "
            f"was settled for {stats.stalled_s:.0f} s"
        )
