"""A profile's settings for ``chaos``."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gearshift.driver.settings import require_range

__all__ = ["Kind", "Rates", "Settings"]


class Kind(StrEnum):
    """What chaos does; each has a rate of its own in ``Rates``."""

    LOST_ACK = "lost_ack"
    SESSION_LOST = "session_lost"
    SEND_UNCONFIRMED = "send_unconfirmed"
    UNFLAGGED = "unflagged"
    LATE = "late"
    RETURNS_LATE = "returns_late"


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often each misfortune happens, where that is not ``rate``."""

    lost_ack: float | None = None
    """Of settlements, on a stream of commits: the connection is lost before the broker has them.

    The messages come again.
    """

    session_lost: float | None = None
    """Of messages received: the connection is lost while they are worked on; they come again."""

    send_unconfirmed: float | None = None
    """Of messages sent: the connection is lost before the confirmation.

    The message, and up to all that were sent with it, are stored or not, and sent again: there may
    be two of them.
    """

    unflagged: float | None = None
    """Of messages that come again: they look as if they came for the first time.

    Only where ``redelivered`` is not exact, and after a lost connection.
    """

    late: float | None = None
    """Of messages received: held back for a while. Others overtake them where no order is
    promised, and wait where it is."""

    returns_late: float | None = None
    """Of messages that come again because their ack was lost: held back, and overtaken also by
    later ones of their key.

    Only on queues where that may happen: those with ``native_retry`` and less than ``order=key``.
    """


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A profile with ``backend = "chaos"``."""

    over: str
    """The profile whose broker it is; its settings and capabilities hold."""

    seed: int = 0
    """All that happens is drawn from it."""

    rate: float = 0.02
    """How often each misfortune happens, 0 to 1; 0.02 is once in 50 messages."""

    rates: Rates = Rates()

    late_s: float = 0.5
    """The longest that a message is held back, and that a session lasts which is to be lost."""

    quiet_s: float = 10.0
    """The least time between two lost connections of a channel's producers, or of a group.

    Connections that last for less than 10 s are replaced more and more slowly.
    """

    processes: int = 1
    """How many consumers a group has at least.

    From two on, a queue with ``order=single_consumer`` promises no order.
    """

    def __post_init__(self) -> None:
        for kind in Kind:
            if not 0 <= self.rate_of(kind) <= 1:
                name = "rate" if getattr(self.rates, kind) is None else f"rates.{kind}"
                raise ValueError(f"{name}: {self.rate_of(kind)} is out of range, use 0 to 1")
        require_range(self, "late_s", 0, 5)
        require_range(self, "quiet_s", 0, 3600)
        require_range(self, "processes", 1, 10000)

    def rate_of(self, kind: Kind) -> float:
        """How often ``kind`` happens, 0 to 1."""
        rate: float | None = getattr(self.rates, kind)
        return self.rate if rate is None else rate
