"""A received message between its arrival and its end."""

from __future__ import annotations

from collections.abc import Container
from enum import Enum, auto
from typing import Any, Self

import msgspec

from gearshift.driver import Received, Settlement, Unstored
from gearshift.errors import GearshiftError
from gearshift.message import Message, Position

__all__ = ["IN_HAND", "SETTLED", "STALE", "Entry", "EntryState"]


class EntryState(Enum):
    """The state of an entry."""

    BUFFERED = auto()  # received, not handed out
    IN_HAND = auto()  # with the user, or on its way to the dead letters
    HELD = auto()  # waits for its retry
    SETTLED = auto()
    STALE = auto()  # the broker will deliver it again


#: By names of their own, as a member of an Enum takes longer to find than all else to do with it.
IN_HAND, SETTLED, STALE = EntryState.IN_HAND, EntryState.SETTLED, EntryState.STALE


class Entry(msgspec.Struct, eq=False, weakref=True):
    """One received message. The first fields are those of ``Received``, in its order.

    ``retries`` counts how often it was handed out again from here. ``obstacle`` is why it is still
    here although its retry or dead letter should be stored elsewhere. ``dead`` is the reason of a
    rejection whose dead letter could not be stored: the handler gets it no more. ``size`` counts
    the bytes of the body.
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
    state: EntryState = EntryState.BUFFERED
    given_at: float = 0.0  # to a user, the last time
    retries: int = 0
    obstacle: GearshiftError | None = None
    dead: str | None = None
    burials: int = 0  # dead letters that could not be stored
    settlement: Settlement | None = None
    delay_s: float = 0.0  # of a retry
    reported: bool = False  # to the driver
    refused: bool = False
    size: int = 0

    @classmethod
    def of(cls, one: Received) -> Self:
        """An entry for what a driver has received."""
        entry = cls(
            one.message, one.token, one.position, one.attempt, one.redelivered,
            one.locked_until, one.lost, one.unstored, one.return_at,
        )  # fmt: skip
        if one.message.body:
            entry.size = len(one.message.body)
        return entry

    @property
    def has_ended(self) -> bool:
        """True once nobody can settle it any more."""
        return self.state is SETTLED or self.state is STALE

    def lies_in(self, partitions: Container[int]) -> bool:
        """True for a message of one of these partitions of a log."""
        return self.position is not None and self.position.partition in partitions

    @property
    def attempts(self) -> int:
        """Attempts that are known of, this one included, from 1."""
        return (self.attempt or 1) + self.retries
