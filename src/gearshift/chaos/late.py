"""Messages that are held back for a while, and those that must not overtake them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from gearshift.chaos.injector import Injector
from gearshift.chaos.settings import Kind
from gearshift.driver import Received
from gearshift.misfortunes import may_overtake

__all__ = ["LateMessages"]


class _Held(NamedTuple):
    due: float
    received: Received
    lets_pass: bool = False  # also later ones of its key


class LateMessages:
    """What the broker has handed over and the consumer has not got yet. The consumer's thread."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector
        self._held: list[_Held] = []

    def __len__(self) -> int:
        return len(self._held)

    def add(self, received: Received) -> None:
        """Hold ``received`` back for a while, or not at all."""
        injector, name = self._injector, received.message.id
        kinds = [Kind.LATE]
        if name in injector.side.unacked:
            injector.side.unacked.discard(name)
            kinds = [Kind.RETURNS_LATE, Kind.LATE]
        kind = next(filter(injector.strikes, kinds), None)
        seconds = 0.0 if kind is None else injector.seconds(kind)
        due = time.monotonic() + seconds
        self._held.append(_Held(due, received, kind is Kind.RETURNS_LATE))
        if kind is not None and seconds:
            injector.tell(kind, f"message {name!r} is {seconds:.2f} s late")

    def take(self, most: int) -> list[Received]:
        """Up to ``most`` of those whose time has come and that nothing holds up, as they came."""
        now = time.monotonic()
        taken: list[Received] = []
        left: list[_Held] = []
        for held in self._held:
            waits = len(taken) >= most or held.due > now
            if waits or not all(self._may_pass(held.received, other) for other in left):
                left.append(held)
            else:
                taken.append(held.received)
        self._held = left
        return taken

    def put_back(self, taken: Sequence[Received]) -> None:
        """Hold these again, which were taken before all others."""
        self._held[:0] = [_Held(0.0, received) for received in taken]

    def wait_s(self, timeout_s: float) -> float:
        """The time until the next one is due, ``timeout_s`` at most."""
        now = time.monotonic()
        return min([timeout_s, *(held.due - now for held in self._held if held.due > now)])

    def drop(self, partitions: Collection[int] | None = None) -> None:
        """Forget those of ``partitions``, or all."""
        self._held = [
            held
            for held in self._held
            if partitions is not None
            and held.received.position is not None
            and held.received.position.partition not in partitions
        ]

    def _may_pass(self, received: Received, held: _Held) -> bool:
        """True if ``received`` may come before ``held``, which the broker had first."""
        if held.lets_pass:
            return True
        earlier = held.received
        here, there = received.position, earlier.position
        if here is not None and there is not None and here.partition == there.partition:
            return False  # offsets rise
        same_key = received.message.key == earlier.message.key
        return may_overtake(self._injector.situation, same_key=same_key)
