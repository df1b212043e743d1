"""Deliveries that users have had in hand for too long: a handler hangs, or somebody forgot them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakSet

from gearshift._core.consuming.entry import IN_HAND, Entry

__all__ = ["LIMIT_S", "InHand"]

#: A handler may take so long where the channel sets no ``max_processing_s``.
LIMIT_S = 300.0

_LOOK_EVERY_S = 5.0


class InHand:
    """Since when deliveries are with users. Has neither lock nor clock, as the window.

    What became stale in hand is with its handler still. It is known here until the handler settles
    it in vain or lets go of it.
    """

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = LIMIT_S if limit_s is None else limit_s
        self._stale: WeakSet[Entry] = WeakSet()
        self._told: WeakSet[Entry] = WeakSet()
        self._look_at = 0.0

    def abandon(self, entries: Iterable[Entry]) -> None:
        """These are about to become stale."""
        self._stale.update(entry for entry in entries if entry.state is IN_HAND)

    def returned(self, entry: Entry) -> None:
        """Its user has tried to settle a stale one."""
        self._stale.discard(entry)

    def among(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those of ``entries`` that are with users, and the stale ones."""
        return [*(entry for entry in entries if entry.state is IN_HAND), *self._stale]

    def is_due(self, now: float) -> bool:
        """True if it is time to look for overdue ones."""
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_EVERY_S
        return True

    def overdue(self, entries: Iterable[Entry], now: float) -> Sequence[Entry]:
        """Those that are with users for longer than the limit, each once for each hand-out."""
        late = WeakSet(e for e in self.among(entries) if now - e.given_at > self.limit_s)
        fresh = [entry for entry in late if entry not in self._told]
        self._told = late
        return fresh
