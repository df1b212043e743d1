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
validation, codecs, keeping track of settlements, retry on logs, dead letters, metrics. In return a
driver can be simple:

- **A driver lives as long as its connection.** It never reconnects. When the connection breaks it
  raises (or reports outcomes with) its client's error; ``Backend.classify`` turns that into
  ``ConnectionFailed``; core closes the driver and asks the backend for a new one. So a token from
  before a reconnect can never settle anything after it: core does not let it reach the new driver.
  A client that heals by itself (librdkafka) does not report what it heals.
- **Drivers raise their client's own errors** and never wrap them. ``classify`` is the one place
  that knows them. A driver raises an error of ``gearshift.errors`` only for what the client does
  not know: ``TopologyConflict``, ``UnknownChannel``, ``Unroutable``, ``NotSupported``.
- **User code never runs on a driver's thread.** The callbacks given to a driver are core's; they
  are quick, never block, and never call back into the driver unless their text below says so.
- **Every wait has an end.** Times are seconds as float. Nothing here may block longer than its
  ``timeout_s``, or about 5 s where there is none, whatever the broker does.

Backends and drivers are subclasses of the protocols below, whose methods with a body are defaults.
What is handed over is in ``values``. Module-level state is not allowed: two buses in one process
must not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gearshift.capabilities import Capabilities
from gearshift.driver.values import (
    BaseChannelSettings,
    ChannelSpec,
    Condition,
    ConsumerSpec,
    GroupStatus,
    OnOutcomes,
    Place,
    Received,
    SettleFailure,
    SettleRequest,
    Start,
)
from gearshift.errors import GearshiftError, NotSupported
from gearshift.message import Message, Semantics

if TYPE_CHECKING:
    from gearshift.driver.measuring import RawClient

__all__ = [
    "DRIVER_API",
    "AdminDriver",
    "Backend",
    "BackendPlugin",
    "LogDriver",
    "LogEvents",
    "ProducerDriver",
    "QueueDriver",
]

#: Version of this contract. A plugin states the one it was written for; another is refused.
DRIVER_API = 1


# ── A backend ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlugin:
    """A backend before any connection exists: what the hook ``gearshift_backend`` returns.

    ``settings`` is the type of a profile, a msgspec Struct with ``forbid_unknown_fields`` and
    defaults, and ``channel_settings`` that of a channel's ``native`` table for this backend. Core
    converts them from TOML. Their ``__post_init__`` checks what a type cannot, raising ValueError
    with a text that starts with the field's name. Fields of type ``Secret`` are masked everywhere.

    ``capabilities`` maps each semantics that the backend offers to what it declares of every
    server that it supports. ``default_semantics`` is the semantics of a channel that names none.

    ``connect`` makes a Backend from a settings object and must not do any I/O.

    ``only_here`` is what a message of another program may have that only this backend carries: each
    name that its ``Native.properties`` can have, and what becomes of it on another broker.
    ``on_arrival`` are lines that say what becomes, here, of messages that came from another one.

    ``raw_client`` makes what ``gearshift bench`` measures beside Gearshift, from the settings and a
    channel that is declared and empty. It makes no connection. None from it, or in its place:
    there is nothing to be measured beside.

    ``url_schemes`` are those of ``gearshift.open("amqp://...")``: each with a function from the URL
    to a profile's settings.

    ``wrap`` is for a backend that stands over another: the setting ``over`` of its profile names
    that one's profile. It is given that plugin, and what connects it, and returns the plugin that
    is used, under that one's name and with its capabilities. Itself it declares none.
    """

    name: str
    driver_api: int
    summary: str
    settings: type
    channel_settings: type[BaseChannelSettings]
    capabilities: Mapping[Semantics, Capabilities]
    default_semantics: Semantics
    connect: Callable[[Any], Backend]
    url_schemes: Mapping[str, Callable[[str], Mapping[str, Any]]] = field(default_factory=dict)
    only_here: Mapping[str, str] = field(default_factory=dict)
    on_arrival: Sequence[str] = ()
    raw_client: Callable[[Any, ChannelSpec], RawClient | None] | None = None
    wrap: Callable[[BackendPlugin, Callable[[], Backend]], BackendPlugin] | None = None


class Backend(Protocol):
    """Makes drivers for one profile. Any thread. Making a driver connects, within about 10 s.

    If the broker cannot be reached, making a driver raises the client's error, as drivers do.
    """

    def endpoints(self) -> Sequence[tuple[str, int]]:
        """Host and port of every server in the settings; none for an embedded backend."""
        return ()

    def check(self, channel: ChannelSpec) -> None:
        """Refuse, before any I/O, what this backend cannot do for this channel's settings.

        Raises ConfigError or NotSupported: for instance a processing time over the broker's lock.
        """
        return

    def admin(self) -> AdminDriver: ...

    def producer(self, channel: ChannelSpec) -> ProducerDriver: ...

    def queue_consumer(self, spec: ConsumerSpec) -> QueueDriver:
        """Only called if the backend declares ``queue`` capabilities."""
        raise NotSupported("queues are not offered", channel=spec.channel.name)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> LogDriver:
        """Only called if the backend declares ``stream`` capabilities."""
        raise NotSupported("streams are not offered", channel=spec.channel.name)

    def classify(self, error: Exception) -> GearshiftError | None:
        """Turn an error that one of our drivers raised or reported into ours; None if unknown.

        ConnectionFailed means: this driver is finished, make a new one. The text holds no secret
        and need not name backend or channel. Core sets ``__cause__``. Never raises.
        """

    def close(self) -> None:
        """Release what drivers shared. Called last, once; all drivers are closed by then."""
        return


# ── Producing ────────────────────────────────────────────────────────────────────────────────────


class ProducerDriver(Protocol):
    """Stores messages of one channel.

    Core bounds what is in flight by count and bytes, so a driver needs no limit of its own. It
    reads the properties and ``blocked`` on any thread, also during other calls; they never block.
    """

    @property
    def heard_at(self) -> float | None:
        """The time at which the broker last said anything, a heartbeat at least, on the clock of
        ``time.monotonic``; None if the driver does not know.

        For brokers that answer nothing while the client waits, and clients that reconnect by
        themselves: without it such a silence is not seen.
        """
        return None

    @property
    def ended(self) -> Exception | None:
        """Why nothing more can be stored, if the driver knows so without a message in hand."""
        return None

    def blocked(self) -> str | None:
        """Why the broker takes nothing at present (a memory alarm, say), or None.

        While this is not None core submits nothing more, and callers' deadlines run.
        """
        return None

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        """Take a batch and return at once; never wait for the network or for room.

        For every message of the batch ``on_outcomes`` gets exactly one Outcome, in any grouping
        and order, on any thread, also before this returns; the larger the groups, the quicker.
        Messages of a batch, and batches, are stored in the order given. YES only once the broker
        has confirmed to the strength that the backend declares. Raises nothing: a dead connection
        is an outcome too. ``messages`` is not changed by either side afterwards.
        """

    def submit_served(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        """As ``submit``, by a thread that calls ``serve`` next: no other has to be woken for it."""
        self.submit(messages, on_outcomes)

    def serve(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Do the driver's work on the caller's thread until ``done()``, if nobody else does it.

        For a sender that waits for its outcomes: without it they take two switches of threads.
        Unlike other calls at any time, also beside them and after ``close``. May return at once or
        early, but what was submitted must then have its outcomes without further calls. Raises
        nothing but what interrupts the caller's thread, such as KeyboardInterrupt.
        """
        return

    def close(self, timeout_s: float) -> None:
        """Wait for outcomes for ``timeout_s``, report what is left as UNKNOWN, let go of all.

        Idempotent. Nothing is reported after it returns, and no thread or socket stays.
        """


# ── Consuming ────────────────────────────────────────────────────────────────────────────────────


class _ConsumerDriver(Protocol):
    """Base of QueueDriver and LogDriver."""

    @property
    def heard_at(self) -> float | None:
        """As ``ProducerDriver.heard_at``. None where ``receive`` only returns after an answer."""
        return None

    @property
    def drained(self) -> bool | None:
        """True if the broker has said since the last message that it has none for this consumer;
        what others have in hand is theirs. On the thread that calls ``receive``.

        None where ``AdminDriver.groups`` tells what waits, and if the driver does not know.
        """
        return None

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        """Up to ``max_messages`` as soon as there is one, or nothing after ``timeout_s``.

        Core asks for as many as it has room for, by number and by the size that messages had
        lately. A driver that has messages pushed to it lets the broker push about as many as it
        holds and ``max_messages``; one that cannot fetch so few fetches when it holds nothing.

        ``max_messages`` 0 means: serve the connection (heartbeats, leases, membership), fetch
        nothing and lose nothing. Core calls this without long gaps, however slow the handlers are,
        so leases of what is in hand can be renewed here. On a log every message has its
        ``position``, and the offsets of a partition rise. Raises when the connection is gone or
        the channel was deleted.
        """

    def wake(self) -> None:
        """Make a blocked ``receive`` return soon. The only method called from other threads.

        May do nothing if ``receive`` never blocks for more than 0.1 s at a time.
        """

    def close(self, timeout_s: float) -> None:
        """Let go of the group at once, so that others take over. Idempotent.

        On a queue what is unsettled goes back, uncounted. On a log core has committed what is
        settled: wait for commits; ``revoked`` is not called any more.
        """


class QueueDriver(_ConsumerDriver, Protocol):
    """One consumer of one group of a queue channel. It is consuming once it has been made."""

    #: Whether tokens are ordered as received, and one SettleRequest may ack a run of them
    #: (``through``).
    cumulative_ack: bool = False

    def isolate(self, wanted: bool) -> None:
        """Choose whether a message that was ``lost`` comes alone, as it does until this is called:
        with no other, and only while this consumer holds nothing. Until then it holds back those
        behind it. Does nothing if nothing can be lost.
        """
        return

    def skipped(self) -> int:
        """How many messages, since the last call, others have deleted before this group had them;
        on the thread that calls ``receive``. 0 where the broker does not let the driver know."""
        return 0

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


class LogEvents(Protocol):
    """Callbacks of a LogDriver to core, from inside ``receive``, ``flush`` or ``close``, on the
    same thread."""

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


class LogDriver(_ConsumerDriver, Protocol):
    """One member of one group of a stream channel: partitions, offsets, one position each."""

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


# ── Administration ───────────────────────────────────────────────────────────────────────────────


class AdminDriver(Protocol):
    """Topology and its state, over a connection of its own. May block for about 10 s a call."""

    def server(self) -> str:
        """Product and version as the server tells it, such as ``RabbitMQ 4.0.5``."""

    def capabilities(self, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        """``declared``, or more of it where this server, by its version or settings, gives more.

        Never less: what the plugin declares holds on every server that the backend supports.
        """
        return declared

    def exists(self, channel: ChannelSpec) -> bool:
        """True if the channel is there. Creates nothing."""

    def declare(self, channel: ChannelSpec) -> None:
        """Create the channel and its ``groups`` where missing; the same again does nothing.

        Raises TopologyConflict, with the properties that differ, if it is there but different,
        and UnknownChannel if ``native`` adopts something that is not there.
        """

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        """State of every group that is in ``channel.groups`` or that the broker knows of."""

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        """Throw away what waits for ``group``; how many that were, if known."""

    def delete(self, channel: ChannelSpec) -> None:
        """Remove the channel, its groups, its messages, and all that using it has made.

        What is missing is fine, also some of it: a deletion that broke off is finished by another.
        Adopted objects are refused.
        """

    def replication(self, channels: Sequence[ChannelSpec]) -> Sequence[Condition] | None:
        """The nodes of the cluster, the copies of these channels and of all that stands beside
        them, and what the loss of one node would do to each; None if the backend does not tell.

        What the client cannot see is said to be unknown.
        """
        return None

    def close(self) -> None:
        """Idempotent."""
        return
