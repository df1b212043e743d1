"""The contract between Gearshift and a backend.

A backend supplies small objects, *drivers*, each for one job, over one connection:

==================  =========================================  =================================
driver              its job                                    who calls it
==================  =========================================  =================================
AdminDriver         declare, describe, purge, delete           any thread, one at a time
ProducerDriver      store batches, one outcome per message     any thread, one at a time
QueueDriver         receive and settle message by message      one thread, the same for its life
LogDriver           read a log, commit positions, seek         one thread, the same for its life
==================  =========================================  =================================

What every broker needs stands once, in core, and not in drivers: reconnecting with backoff,
sending again what a lost connection left unconfirmed, bounding what is in flight, deadlines,
validation, codecs, the settle ledger, retry on logs, dead letters, metrics. In return a driver
can be simple:

- **A driver lives as long as its connection.** It never reconnects. When the connection breaks it
  raises (or reports outcomes with) its client's error; ``Backend.classify`` turns that into
  ``ConnectionFailed``; core closes the driver and asks the backend for a new one. So a token from
  before a reconnect can never settle anything after it: core does not let it reach the new driver.
  A client that heals by itself (librdkafka) simply does not report what it heals.
- **Drivers raise their client's own errors** and never wrap them. ``classify`` is the one place
  that knows them. A driver raises an error of ``gearshift.errors`` only for what the client does
  not know: ``TopologyConflict``, ``UnknownChannel``, ``Unroutable``, ``NotSupported``.
- **User code never runs on a driver's thread.** The callbacks given to a driver are core's; they
  are quick, never block, and never call back into the driver unless their text below says so.
- **Every wait has an end.** Times are seconds as float. Nothing here may block longer than its
  ``timeout_s``, or about 5 s where there is none, whatever the broker does.

Module-level state is not allowed: two buses in one process must not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

from gearshift.capabilities import Capabilities
from gearshift.errors import GearshiftError
from gearshift.message import Message, Position, Semantics

__all__ = [
    "DRIVER_API",
    "AdminDriver",
    "Backend",
    "BackendPlugin",
    "ChannelSpec",
    "Condition",
    "ConsumerSpec",
    "GroupStatus",
    "LogDriver",
    "LogEvents",
    "OnOutcomes",
    "Outcome",
    "Place",
    "ProducerDriver",
    "QueueDriver",
    "Received",
    "SettleFailure",
    "SettleRequest",
    "Settlement",
    "Start",
    "StartAt",
    "Stored",
    "Unstored",
]

#: Version of this contract. A plugin states the one it was written for; another is refused.
DRIVER_API = 1


# ── What a backend is ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlugin:
    """What the hook ``gearshift_backend`` returns: a backend before any connection exists.

    ``settings`` is the type of a profile and ``channel_settings`` that of a channel's ``native``
    table for this backend: msgspec Structs with ``forbid_unknown_fields`` and defaults, converted
    from TOML by core. Their ``__post_init__`` checks what a type cannot, raising ValueError with a
    text that starts with the field's name. Fields of type ``Secret`` are masked everywhere.
    ``channel_settings`` that adopt what others read say so with a property ``others_read``: then
    whoever only sends makes no default group, which nobody would empty. What they adopt they name
    in a property ``adopts`` (such as ``queue 'celery'``), None if that is nothing: it is told if
    the channel is not there.

    ``capabilities`` maps each semantics that the backend offers to what it declares of every
    server that it supports; ``AdminDriver.capabilities`` may add to that once connected.
    ``natural`` is the semantics of a channel that names none.

    ``connect`` makes a Backend from a settings object and must not do any I/O.

    ``only_here`` is what a message of another program may have that only this backend carries: each
    name that its ``Native.properties`` can have, and what becomes of it on another broker.
    ``on_arrival`` are lines that say what becomes, here, of messages that came from another one.

    ``url_schemes`` are those of ``gearshift.open("amqp://...")``: each with a function from the URL
    to a profile's settings.
    """

    name: str
    driver_api: int
    summary: str
    settings: type
    channel_settings: type
    capabilities: Mapping[Semantics, Capabilities]
    natural: Semantics
    connect: Callable[[Any], Backend]
    url_schemes: Mapping[str, Callable[[str], Mapping[str, Any]]] = field(default_factory=dict)
    only_here: Mapping[str, str] = field(default_factory=dict)
    on_arrival: Sequence[str] = ()


class Backend(Protocol):
    """Makes drivers for one profile. Any thread. Making a driver connects, within about 10 s.

    If the broker cannot be reached a factory raises its client's error, as drivers do.
    """

    def endpoints(self) -> Sequence[tuple[str, int]]:
        """Host and port of every server in the settings; empty for an embedded backend."""

    def check(self, channel: ChannelSpec) -> None:
        """Refuse, before any I/O, what this backend cannot do for this channel's settings.

        Raises ConfigError or NotSupported: for instance a processing time over the broker's lock.
        """

    def admin(self) -> AdminDriver: ...

    def producer(self, channel: ChannelSpec) -> ProducerDriver: ...

    def queue_consumer(self, spec: ConsumerSpec) -> QueueDriver:
        """Only called if the backend declares ``queue`` capabilities."""

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> LogDriver:
        """Only called if the backend declares ``stream`` capabilities."""

    def classify(self, error: Exception) -> GearshiftError | None:
        """Turn an error that one of our drivers raised or reported into ours; None if unknown.

        ConnectionFailed means: this driver is finished, make a new one. The text holds no secret
        and need not name backend or channel. Core sets ``__cause__``. Never raises.
        """

    def close(self) -> None:
        """Release what drivers shared. Called last, once; all drivers are closed by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """A channel as the program knows it.

    ``groups`` are those that must exist for a queue from its first message on. ``partitions`` is
    for streams; None means the backend's default. ``native`` is an instance of the plugin's
    ``channel_settings``: where it names an existing object, that object is used as it is, checked
    for existence and neither created nor changed. ``max_attempts`` and ``max_processing_s`` let a
    backend set the broker's own limits above ours, so that ours always act first; with None for
    the latter the broker's own limit stays. ``largest_bytes`` is the largest message that must
    fit, where the channel holds another's dead letters; None where nobody has said.
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
    """Where a group that has no position yet begins to read a stream, and where ``seek`` goes."""

    EARLIEST = "earliest"
    LATEST = "latest"
    OFFSET = "offset"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read from: ``positions`` (next offset per partition) and ``time_ms`` go with ``at``.

    They are given for OFFSET and TIME only.
    """

    at: StartAt = StartAt.EARLIEST
    positions: Mapping[int, int] = field(default_factory=dict)
    time_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """What a consumer driver is made for.

    ``prefetch`` is the most messages that may be received and not settled, from 1. ``member`` is
    a readable, unique name for this consumer. An ``ephemeral`` group belongs to this consumer
    alone and leaves nothing behind: on a queue it gets what is sent from now on, on a stream it
    begins at ``start``; it never touches another group's progress.
    """

    channel: ChannelSpec
    group: str
    member: str
    prefetch: int
    start: Start = Start()
    ephemeral: bool = False


# ── Producing ────────────────────────────────────────────────────────────────────────────────────


class Stored(StrEnum):
    """What is known of a message that was handed to a driver."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Outcome(NamedTuple):
    """The end of one message of a batch.

    ``number`` is its place in the submitted batch. With ``Stored.NO`` or ``UNKNOWN`` there is an
    ``error`` for ``classify``. Say NO only where the broker cannot have it: what was written to a
    socket and never confirmed is UNKNOWN. If ``classify`` calls the error a ConnectionFailed, core
    makes a new driver and sends the message again under its id. So it does with an UnknownChannel,
    once it has made sure of the channel as at open; any other error is final.
    """

    number: int
    stored: Stored
    position: Position | None = None
    error: Exception | None = None


OnOutcomes: TypeAlias = Callable[[Sequence[Outcome]], None]


class ProducerDriver(Protocol):
    """Stores messages of one channel.

    Core bounds what is in flight by count and bytes, so a driver needs no limit of its own.

    It may have an attribute ``heard_at``, as a QueueDriver may: also for a broker that answers
    nothing while the client waits, or heals the connection by itself. And ``ended``: why it can
    store nothing more, or None; for one that notices this without a message in hand.
    """

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        """Take a batch and return at once; never wait for the network or for room.

        For every message of the batch ``on_outcomes`` gets exactly one Outcome, in any grouping
        and order, on any thread, also before this returns; the larger the groups, the quicker.
        Messages of a batch, and batches, are stored in the order given. YES only once the broker
        has confirmed to the strength that the backend declares. Raises nothing: a dead connection
        is an outcome too. ``messages`` is not changed by either side afterwards.
        """

    def blocked(self) -> str | None:
        """Why the broker takes nothing at present (a memory alarm, say), or None. Must not block.

        While this is not None core submits nothing more, and callers' deadlines run.
        """

    def flush(self, timeout_s: float) -> bool:
        """Wait until every submitted message has its outcome; False if time ran out."""

    def close(self, timeout_s: float) -> None:
        """Flush for ``timeout_s``, then report what is left as UNKNOWN, and let go of everything.

        Idempotent. Nothing is reported after it returns, and no thread or socket stays.
        """


# ── Consuming ────────────────────────────────────────────────────────────────────────────────────


class Unstored(NamedTuple):
    """A RETRY that could not be stored: the client's error, and the delay that was asked for."""

    error: Exception
    delay_s: float


class Received(NamedTuple):
    """One received message.

    ``token`` is whatever settles it (a delivery tag, a row id); core never looks inside. On a log
    it is the Position. ``attempt`` counts from 1 and ``redelivered`` says whether it was handed to
    anybody before; None is 'not known', never a guess. ``locked_until`` is when it goes to somebody
    else unless it was settled, on the clock of ``time.monotonic``; None where that cannot happen
    while this consumer is alive. ``return_at``, on the same clock, is when core gives it back
    (RELEASE) if nobody has taken it by then, so that enough of the lock is left for working on it;
    what came before and after it and waits as well goes back with it, in order.

    ``lost`` counts the deliveries since the last RETRY that ended without a word, because a process
    died or a lock was over; a RELEASE or a close loses nothing. Any of several messages may have
    been the cause of the first one, so it is an attempt only if it is known to be; from the second
    on all of them are (core takes suspects one by one, see its module ``suspects``). A LogDriver
    leaves it 0: core reads it from the notes (see ``Place``).

    ``unstored`` says that it is not a new delivery (see ``QueueDriver.settle``).
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
    """How one delivery ended. DISCARD: gone without success, its dead letter is already stored
    unless the SettleRequest says ``refused``."""

    ACK = "ack"
    RETRY = "retry"
    DISCARD = "discard"
    RELEASE = "release"  # never worked on: give it back at once and do not count an attempt


class SettleRequest(NamedTuple):
    """``delay_s`` is for RETRY. ``through``: ACK this token and all earlier ones (see QueueDriver),
    but for those whose RETRY the driver has not completed yet.

    A RETRY carries the ``message`` as it came and the ``attempt`` that failed, for backends that
    have to store it again themselves. ``refused`` is for DISCARD: the channel has no dead letters
    of ours, so what the owner of an adopted queue does with refused messages may happen to it.
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


class QueueDriver(Protocol):
    """One consumer of one group of a queue channel. It is consuming once it has been made.

    If ``cumulative_ack`` is true, tokens are ordered as received and core may send one
    SettleRequest with ``through=True`` for a run of acks.

    It may have an attribute ``heard_at``: when the broker last said anything, a heartbeat at least,
    on the clock of ``time.monotonic``. A driver whose ``receive`` can only return if the broker has
    answered just now needs none. The same is true of a LogDriver.
    """

    cumulative_ack: bool

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        """Up to ``max_messages`` as soon as there is one, or nothing after ``timeout_s``.

        Core asks for as many as it has room for, by number and by the size that messages had
        lately. A driver that has messages pushed to it lets the broker push about as many as it
        holds and ``max_messages``; one that cannot fetch so few fetches when it holds nothing.

        ``max_messages`` 0 means: serve the connection (heartbeats, leases) and fetch nothing. Core
        calls this without long gaps, however slow the handlers are, so leases of what is in
        hand can be renewed here. Raises when the connection is gone or the queue was deleted.
        """

    def isolate(self, wanted: bool) -> None:
        """Whether a message that was ``lost`` comes alone, as it does until this is called: with
        no other, and only while this consumer holds nothing. Until then it holds back those behind
        it. Does nothing if nothing can be lost.
        """

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        """Tell the broker, in this order; returns what could not be settled. May return before
        the broker has processed it, but a later receive, settle or close must not overtake it.

        RETRY with a delay is only given where ``native_delay`` is declared: the message comes
        back after about ``delay_s``, its attempt one higher, and nothing is lost if this process
        or the broker dies in between.

        A RETRY that the broker refuses to store (no permission, a quota, no room) is not given
        back to the broker, which would deliver it again at once: the message stays this
        consumer's, and a ``receive`` returns it, whatever ``max_messages`` is and without others,
        as a Received with the same token, its attempt one higher and ``unstored``. Core keeps it
        for the delay and settles it again.
        """

    def wake(self) -> None:
        """Make a blocked ``receive`` return soon. The only method called from other threads.

        May do nothing if ``receive`` never blocks for more than 0.1 s at a time.
        """

    def close(self, timeout_s: float) -> None:
        """Stop; what is unsettled goes back to the group, uncounted. Idempotent."""


class Place(int):
    """A group's position in a partition: the next offset to read, with a note stored beside it.

    Core writes the note and reads it when the partition has a new owner, and so learns of the
    deaths of readers (see its module ``suspects``). A driver stores and returns it as it is: up to
    100 ASCII characters, empty where nothing was stored. Offset and note are stored in one step.
    """

    note: str

    def __new__(cls, offset: int, note: str = "") -> Self:
        place = super().__new__(cls, offset)
        place.note = note
        return place


class LogEvents(Protocol):
    """What a LogDriver tells core, from inside ``receive``, ``flush`` or ``close``, on the same
    thread."""

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None:
        """This consumer now also owns ``partitions`` and stands at their positions.

        Called at least once, with an empty list if there is nothing for it to own. ``places`` are
        these positions, with the notes that the last owner has committed; a driver that does not
        store notes leaves them out, and then a message that kills its reader is read for ever.
        """

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        """It is about to lose ``partitions``. Waits briefly for what is being worked on and
        returns the positions to commit before letting go."""

    def lost(self, partitions: Sequence[int]) -> None:
        """They are gone already; nothing may be committed for them."""

    def skipped(self, partition: int, count: int) -> None:
        """Retention has deleted the next ``count`` messages, at most, before they were read; it
        goes on with the oldest that is left. Said by drivers whose broker lets them know."""


class LogDriver(Protocol):
    """One member of one group of a stream channel: partitions, offsets, one position each."""

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        """As QueueDriver.receive. Every Received has its ``position``; offsets of a partition rise.

        With ``max_messages`` 0 membership is kept and nothing is fetched or lost.
        """

    def commit(self, positions: Mapping[int, Place]) -> None:
        """Store the next offset to read per partition for the group. May return before the broker
        has it, but ``close`` must not. Positions of partitions that are not owned are ignored."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has what was committed; False if time ran out.

        Keeps what arrives meanwhile for ``receive``. Only called if ``assigned`` was given places.
        """

    def seek(self, start: Start) -> None:
        """Move every owned partition to ``start``; the next receive continues there.

        Core has forgotten what was received before. A partition that ``positions`` leaves out
        stays where it is.
        """

    def wake(self) -> None:
        """As QueueDriver.wake."""

    def close(self, timeout_s: float) -> None:
        """Wait for commits, leave the group so that others take over at once. Idempotent.

        Core has committed what is settled; ``revoked`` is not called any more.
        """


# ── Administration ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """A group at one moment. What the broker does not tell is None, never 0.

    Queues: ``ready`` waits, ``in_flight`` is handed out and unsettled. Streams: ``lag`` is what
    lies behind the group's positions. ``oldest_age_s`` is the age of the oldest of these.
    """

    group: str
    ready: int | None = None
    in_flight: int | None = None
    lag: int | None = None
    oldest_age_s: float | None = None
    consumers: int | None = None


class Condition(NamedTuple):
    """One thing that an operator should know of a cluster, in plain words.

    ``subject`` is a channel's name or ``cluster``. ``hint`` is what to do if it is a problem.
    """

    subject: str
    text: str
    hint: str | None = None


class AdminDriver(Protocol):
    """Topology and its state, over a connection of its own. May block for about 10 s a call.

    It may have a method ``replication(channels: Sequence[ChannelSpec]) -> Sequence[Condition]``:
    the nodes of the cluster, the copies of these channels and of all that stands beside them, and
    what the loss of one node would do to each. What the client cannot see is said to be unknown.
    """

    def server(self) -> str:
        """Product and version as the server tells it, such as ``RabbitMQ 4.0.5``."""

    def capabilities(self, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        """``declared``, or more of it where this server, by its version or settings, gives more.

        Never less: what the plugin declares holds on every server that the backend supports.
        """

    def exists(self, channel: ChannelSpec) -> bool:
        """True if the channel is there. Creates nothing."""

    def declare(self, channel: ChannelSpec) -> None:
        """Create the channel and its ``groups`` where missing; the same again does nothing.

        Raises TopologyConflict, with the properties that differ, if it is there but different,
        and UnknownChannel if ``native`` adopts something that is not there.
        """

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        """State of every group that is in ``channel.groups`` or that the broker knows of."""

    def declare_group(self, channel: ChannelSpec, group: str) -> None:
        """Create one more group of a queue; on a stream, nothing need be done."""

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        """Throw away what waits for ``group``; how many that were, if known."""

    def delete(self, channel: ChannelSpec) -> None:
        """Remove the channel, its groups, its messages, and all that using it has made.

        What is missing is fine, also some of it: a deletion that broke off is finished by another.
        Adopted objects are refused.
        """

    def close(self) -> None:
        """Idempotent."""
