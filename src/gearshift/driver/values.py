"""Values that core and drivers hand over: specifications, outcomes, received messages, states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec

from gearshift.errors import UsageError
from gearshift.message import Message, Position, Semantics

__all__ = [
    "BaseChannelSettings",
    "ChannelSpec",
    "Condition",
    "ConsumerSpec",
    "GroupStatus",
    "OnOutcomes",
    "Outcome",
    "Place",
    "Received",
    "SettleFailure",
    "SettleRequest",
    "Settlement",
    "Start",
    "StartAt",
    "Stored",
    "Unstored",
]


# ── What a driver is made for ────────────────────────────────────────────────────────────────────


class BaseChannelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel's ``native`` table for one backend. Used as it is where there is nothing to set."""

    @property
    def adopts(self) -> str | None:
        """The existing object that is used as it is, such as ``queue 'celery'``, or None.

        It is named in the error if it is not there.
        """
        return None

    @property
    def others_read(self) -> bool:
        """True if what is adopted has readers of its own: then whoever only sends makes no default
        group, which nobody would empty."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """A channel as the program knows it.

    ``groups`` must exist on a queue from its first message on. ``partitions`` is for streams; None
    means the backend's default. ``native`` is an instance of the plugin's ``channel_settings``:
    what it adopts must exist, and is neither created nor changed. ``max_attempts`` and
    ``max_processing_s`` let a backend set the broker's own limits above ours, so that ours act
    first; where the latter is None the broker's limit stays. ``largest_bytes`` is the largest
    message that must fit into a channel for dead letters, if known.
    """

    name: str
    semantics: Semantics
    groups: tuple[str, ...]
    partitions: int | None = None
    retention_s: float | None = None
    max_attempts: int = 5
    max_processing_s: float | None = None
    largest_bytes: int | None = None
    native: Any = None


class StartAt(StrEnum):
    """Where a group without a position begins to read a stream, and where ``seek`` goes."""

    EARLIEST = "earliest"
    LATEST = "latest"
    OFFSET = "offset"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read a stream from. Users make one with ``at_offsets`` or ``at_time``.

    ``positions`` (next offset per partition) are given for OFFSET, and ``time_ms`` for TIME.
    """

    at: StartAt = StartAt.EARLIEST
    positions: Mapping[int, int] = field(default_factory=dict)
    time_ms: int | None = None

    @classmethod
    def at_offsets(cls, offsets: Mapping[int, int]) -> Self:
        """Partition → the offset of the first message to read; others stay where they are."""
        return cls(StartAt.OFFSET, dict(offsets))

    @classmethod
    def at_time(cls, moment: datetime) -> Self:
        """The first message from ``moment`` on. Raises UsageError if it has no time zone."""
        if moment.tzinfo is None:
            raise UsageError(
                f"start at {moment} has no time zone", hint="use datetime.now(timezone.utc)"
            )
        return cls(StartAt.TIME, time_ms=int(moment.timestamp() * 1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """Specification of one consumer driver.

    ``prefetch`` is how many messages may be received and not settled, at least 1. ``member`` is a
    readable, unique name of this consumer, the same after a reconnect. An ``ephemeral`` group
    belongs to this consumer alone and leaves nothing behind: on a queue it gets what is sent from
    now on, on a stream it begins at ``start``. It never touches another group's progress.
    """

    channel: ChannelSpec
    group: str
    member: str
    prefetch: int
    start: Start = Start()
    ephemeral: bool = False


# ── Producing ────────────────────────────────────────────────────────────────────────────────────


class Stored(StrEnum):
    """Knowledge about a message that was handed to a driver."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The end of one message of a batch.

    ``number`` is its index in the batch. NO and UNKNOWN come with an ``error`` for ``classify``.
    NO is only for what the broker cannot have: what was written to a socket and never confirmed is
    UNKNOWN. After a ConnectionFailed core sends the message again under its id, through a new
    driver; after an UnknownChannel too, once it has made sure of the channel as it does when it
    opens one. Any other error is final.
    """

    number: int
    stored: Stored
    position: Position | None = None
    error: Exception | None = None


#: Takes the outcomes of messages of a batch, in any number of calls.
OnOutcomes: TypeAlias = Callable[[Sequence[Outcome]], None]


# ── Consuming ────────────────────────────────────────────────────────────────────────────────────


class Unstored(NamedTuple):
    """A RETRY that could not be stored: the client's error, and the delay that was asked for."""

    error: Exception
    delay_s: float


class Received(msgspec.Struct, frozen=True, gc=False):
    """One received message. What is not known is None, never a guess.

    ``token`` settles it: a delivery tag or a row id on a queue, which core neither looks into nor
    hashes, and the Position on a log. ``attempt`` counts from 1. ``redelivered`` is True if the
    message was handed to anybody before.

    ``locked_until``, on the clock of ``time.monotonic``, is when an unsettled message goes to
    somebody else though this consumer is alive; None where that cannot happen. ``return_at``, on
    the same clock, is when core gives a message back (RELEASE) that nobody has taken yet, so that
    the next consumer has enough of the lock left. What waits beside it goes back with it, in order.

    ``lost`` counts the deliveries since the last RETRY that ended because a process died or a lock
    was over; a RELEASE or a close loses nothing. Any of several messages may have caused the first
    loss, so core takes such messages one by one, and counts the losses as attempts from the second
    on. A LogDriver leaves it 0: core reads it from the notes (see ``Place``).

    ``unstored`` marks a message that is not a new delivery (see ``QueueDriver.settle``).
    """

    message: Message
    token: Any
    position: Position | None = None
    attempt: int | None = None
    redelivered: bool | None = None
    locked_until: float | None = None
    lost: int = 0
    unstored: Unstored | None = None
    return_at: float | None = None


class Settlement(StrEnum):
    """The end of one delivery."""

    ACK = "ack"
    RETRY = "retry"
    DISCARD = "discard"  # without success; its dead letter is stored already, unless ``refused``
    RELEASE = "release"  # never worked on: give it back at once and do not count an attempt


class SettleRequest(msgspec.Struct, frozen=True, gc=False):
    """One delivery to settle.

    ``delay_s`` is for RETRY, as are the ``message`` as it came and the ``attempt`` that failed, for
    backends that have to store it again themselves. ``through`` is for ACK, of a driver with
    ``cumulative_ack``: this token and all earlier ones, except those whose RETRY the driver has not
    completed. ``refused`` is for DISCARD: Gearshift keeps no dead letters of this channel, so the
    broker may do what the owner of an adopted queue wants done with refused messages.
    """

    token: Any
    settlement: Settlement
    delay_s: float = 0.0
    through: bool = False
    message: Message | None = None
    attempt: int | None = None
    refused: bool = False


class SettleFailure(NamedTuple):
    """A token that could not be settled: its lease or lock was over, or the broker refused it."""

    token: Any
    error: Exception


class Place(int):
    """A group's position in a partition: the next offset to read, with a note stored beside it.

    Core writes the note, reads it when the partition has a new owner, and so learns that readers
    have died. A driver stores it in one step with the offset and returns it as it is: up to 100
    ASCII characters, empty where nothing was stored.
    """

    note: str

    def __new__(cls, offset: int, note: str = "") -> Self:
        place = super().__new__(cls, offset)
        place.note = note
        return place


# ── Administration ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """A group at one moment. What the broker does not tell is None, never 0.

    Queues: ``ready`` waits, ``in_flight`` is handed out and unsettled. Streams: ``lag`` is how many
    messages are behind the group's positions; of a group without positions, which may start
    anywhere, ``retained`` is how many messages there are at all. ``oldest_age_s`` is the age of the
    oldest of these.
    """

    group: str
    ready: int | None = None
    in_flight: int | None = None
    lag: int | None = None
    retained: int | None = None
    oldest_age_s: float | None = None
    consumers: int | None = None

    @property
    def waiting(self) -> int | None:
        """The number of messages that wait for the group, of a queue or a stream."""
        return self.lag if self.ready is None else self.ready


class Condition(NamedTuple):
    """One thing that an operator should know of a cluster, in plain words.

    ``subject`` is a channel's name or ``cluster``. ``hint`` is what to do if it is a problem.
    """

    subject: str
    text: str
    hint: str | None = None
