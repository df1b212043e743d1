"""Adding up what the producers and consumers of one bus have counted, closed ones included."""

from __future__ import annotations

import threading
from typing import Any, Protocol, TypeAlias

from gearshift.stats import ReceiveStats, SendStats, Stats

__all__ = ["Counted", "StatisticsRegistry"]

#: Kind of stats, channel, group.
_Key: TypeAlias = tuple[type, str, str | None]


class Counted(Protocol):
    """The part of a producer or consumer that has counted something."""

    @property
    def closed(self) -> bool: ...

    def stats(self) -> SendStats | ReceiveStats: ...


class StatisticsRegistry:
    """Sums of what producers and consumers have counted. Any thread.

    ``_lock`` guards ``_open`` and ``_past``: what was closed is added to the latter and forgotten.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Counted] = []
        self._past: dict[_Key, Any] = {}

    def add(self, counted: Counted) -> None:
        """From now on this counts too."""
        with self._lock:
            closed = [one for one in self._open if one.closed]
            for one in closed:
                _add_to(self._past, one.stats())
            self._open = [one for one in self._open if one not in closed] + [counted]

    def stats(self) -> Stats:
        """The sums, now."""
        with self._lock:
            sums = dict(self._past)
            for counted in self._open:
                _add_to(sums, counted.stats())
        found = sums.values()
        return Stats(
            sending=tuple(one for one in found if isinstance(one, SendStats)),
            receiving=tuple(one for one in found if isinstance(one, ReceiveStats)),
        )


def _add_to(sums: dict[_Key, Any], more: SendStats | ReceiveStats) -> None:
    group = more.group if isinstance(more, ReceiveStats) else None
    key = (type(more), more.channel, group)
    sums[key] = sums[key] + more if key in sums else more
