"""Health of a bus: not just connected, but consuming and getting on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gearshift._core.consuming.in_hand import LIMIT_S
from gearshift.bus import Bus
from gearshift.stats import ReceiveStats, SendStats

__all__ = ["degraded", "problems"]

#: Reconnecting takes seconds, and heartbeats are 5 s apart; a longer silence is a problem, which
#: is to be found within 20 s.
SILENT_AFTER_S = 18.0


def problems(bus: Bus) -> list[str]:
    """Return what is wrong with ``bus`` now, in sentences; an empty list if it is healthy.

    A consumer or producer has a problem if its broker has said nothing for 18 s, not even by a
    heartbeat. A consumer has one too if it has ended, or if nothing was settled for longer than
    ``max_processing_s`` while all is in hand that prefetch allows, or its handlers take: where that
    is not set nobody knows how long is too long, and a restart would kill a long job. A producer
    has one if the broker takes nothing. Any thread; does not block and asks no broker.
    """
    stats = bus.stats()
    found = [problem for sending in stats.sending for problem in _of_sending(sending)]
    for receiving in stats.receiving:
        found += _of_receiving(receiving, _limit_s(bus, receiving) or math.inf)
    return [bus.config.masked(problem) for problem in found]


def degraded(bus: Bus) -> list[str]:
    """Return what ``bus`` cannot do at present although it works, as ``problems`` does.

    A consumer keeps messages whose retry or dead letter the broker does not store: a missing
    permission, a quota, a full dead-letter queue. A restart would not mend that. One delivery has
    been unsettled for longer than ``max_processing_s`` (or 300 s): its handler hangs or works for
    long, or it was not settled.
    """
    found: list[str] = []
    for one in bus.stats().receiving:
        where = f"channel {one.channel!r}, group {one.group!r}"
        if one.unstored:
            found.append(
                f"{where}: {one.unstored} messages wait in this process, because their retry or "
                f"dead letter cannot be stored: {one.obstacle}"
            )
        if one.longest_s > (_limit_s(bus, one) or LIMIT_S):
            found.append(f"{where}: a delivery has been unsettled for {one.longest_s:.0f} s")
    return [bus.config.masked(text) for text in found]


def _limit_s(bus: Bus, stats: ReceiveStats) -> float | None:
    return bus.config.channel(stats.channel).max_processing_s


def _of_sending(stats: SendStats) -> Iterator[str]:
    where = f"channel {stats.channel!r}"
    yield from _of_silence(f"{where}, sending", stats)
    if stats.blocked is not None:
        yield f"{where}: the broker takes no messages: {stats.blocked}"


def _of_receiving(stats: ReceiveStats, limit_s: float) -> Iterator[str]:
    where = f"channel {stats.channel!r}, group {stats.group!r}"
    if stats.error is not None:
        yield f"{where}: a consumer has ended: {stats.error}"
    else:
        yield from _of_silence(where, stats)
    if stats.stalled_s > limit_s:
        yield (
            f"{where}: {stats.in_hand} deliveries are being handled, as many as prefetch or the "
            f"handlers allow, and none was settled for {stats.stalled_s:.0f} s"
        )


def _of_silence(where: str, stats: SendStats | ReceiveStats) -> Iterator[str]:
    if stats.silent_s > SILENT_AFTER_S:
        reason = f": {stats.disconnected}" if stats.disconnected else ""
        yield f"{where}: nothing was heard from the broker for {stats.silent_s:.0f} s{reason}"
