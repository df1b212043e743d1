"""Messages of an event loop that leave together, and who waits for their results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gearshift._core.publishing.batch import Batch
from gearshift.errors import GearshiftError
from gearshift.message import Message, SendResult
from gearshift.producer import CHUNK

__all__ = ["GatheredParcel", "Parcel"]

#: Deadlines so near to each other are one: of what is sent in one turn of the loop. Seconds.
_SAME_TURN_S = 0.05


@dataclass(slots=True, eq=False)
class Parcel:
    """Messages that leave together.

    ``gone`` gets None once they are handed over, or the error with which they were refused, and
    ``results`` the result of each.
    """

    deadline: float
    messages: list[Message]
    gone: asyncio.Future[GearshiftError | None]
    results: asyncio.Future[Sequence[SendResult]]
    batch: Batch | None = None  # once plugins were shown the messages

    def is_wanted(self) -> bool:
        """Leave out what nobody waits for any more; False if nothing is left."""
        return not (self.results.done() or self.gone.cancelled())

    def end(self, results: Sequence[SendResult]) -> None:
        """Tell whoever waits."""
        if not self.results.done():
            self.results.set_result(results)


@dataclass(slots=True, eq=False)
class GatheredParcel(Parcel):
    """Messages of several tasks; ``waiting`` gets the result of each, in their order."""

    waiting: list[asyncio.Future[SendResult]] = field(default_factory=list)

    def takes_more(self, deadline: float) -> bool:
        """True if a message with this deadline may leave with the others."""
        is_near = abs(deadline - self.deadline) < _SAME_TURN_S
        return is_near and self.batch is None and len(self.messages) < CHUNK

    def has_left(self, waiting: asyncio.Future[SendResult]) -> bool:
        """True if the message whose result is ``waiting`` was handed over."""
        return self.gone.done() and self.gone.result() is None and waiting in self.waiting

    def is_wanted(self) -> bool:
        kept = [index for index, one in enumerate(self.waiting) if not one.done()]
        if self.batch is None or not kept:
            self.messages = [self.messages[index] for index in kept]
            self.waiting = [self.waiting[index] for index in kept]
        return bool(kept)

    def end(self, results: Sequence[SendResult]) -> None:
        for one, result in zip(self.waiting, results, strict=True):
            if not one.done():
                one.set_result(result)
