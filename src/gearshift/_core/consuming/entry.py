"""A received message between its arrival and its end."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from gearshift.driver import SettleRequest, Unstored
from gearshift.errors import GearshiftError
from gearshift.message import Message, Position

__all__ = ["Entry", "Fate"]


class Fate(Enum):
    """The state of an entry."""

    BUFFERED = auto()  # received, not handed out
    IN_HAND = auto()  # with the user, or on its way to the dead letters
    HELD = auto()  # waits for its retry
    SETTLED = auto()
    STALE = auto()  # the broker will deliver it again


@dataclass(slots=True, eq=False)
class Entry:
    """One received message. The first fields are those of ``Received``, in its order.

    ``retries`` counts how often it was handed out again from here. ``obstacle`` is why it is still
    here although its retry or dead letter should be stored elsewhere. ``dead`` is the reason of a
    rejection whose dead letter could not be stored: the handler gets it no more.
    """

    message: Message
    token: Any
    position: Position | None
    attempt: int | None
    redelivered: bool | None
    locked_until: float | None = None
    lost: int = 0
    unstored: Unstored | None = None
    return_at: float | None = None
    fate: Fate = Fate.BUFFERED
    retries: int = 0
    obstacle: GearshiftError | None = None
    dead: str | None = None
    burials: int = 0  # dead letters that could not be stored
    request: SettleRequest | None = None
    reported: bool = False  # to the driver
    refused: bool = False

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.message.body or b"")

    @property
    def has_ended(self) -> bool:
        """True once nobody can settle it any more."""
        return self.fate is Fate.SETTLED or self.fate is Fate.STALE

    def lies_in(self, partitions: Container[int]) -> bool:
        """True for a message of one of these partitions of a log."""
        return self.position is not None and self.position.partition in partitions

    @property
    def attempts(self) -> int:
        """Attempts that are known of, this one included, from 1."""
        return (self.attempt or 1) + self.retries
