"""The simulated broker: channels, and what of them each handler's group has still to be given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.retry import RetryPolicy
from gearshift._core.consuming.subscription import ConsumerPolicy
from gearshift._core.listeners import Listeners
from gearshift.bus import Bus
from gearshift.bus.policies import consumer_policy
from gearshift.capabilities import Known, Order
from gearshift.driver import ConsumerSpec
from gearshift.message import DEFAULT_GROUP, Key, Message, Position, Semantics
from gearshift.misfortunes import Situation, may_overtake
from gearshift.worker.app import Handler

__all__ = ["Group", "GroupEntry", "Sent", "Settling", "SimulatedBroker", "group_of"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message in a channel; ``number`` is its place among all that were stored."""

    number: int
    channel: str
    message: Message


@dataclass(eq=False, slots=True)
class Group:
    """A handler, the group that it works for, and the channel's settings."""

    handler: Handler
    policy: ConsumerPolicy
    situation: Situation
    dead_letter: str | None

    @property
    def name(self) -> str:
        """The handler's function, for the story."""
        return str(getattr(self.handler.call.function, "__name__", self.handler.call.function))


def group_of(bus: Bus, handler: Handler, processes: int) -> Group:
    """What a worker would go by for ``handler``. Raises NotSupported for what it requires."""
    channel = handler.channel
    topology = bus._topology
    spec = topology.spec(channel)
    capabilities = topology.capabilities(spec)
    group = handler.group or DEFAULT_GROUP
    consumer = ConsumerSpec(channel=spec, group=group, member="proved", prefetch=1)
    chosen = topology.settings(channel)
    return Group(
        handler=handler,
        policy=consumer_policy(
            bus.backend, consumer, chosen, capabilities, None, handler.call.value_type
        ),
        situation=Situation(
            capabilities=capabilities,
            semantics=spec.semantics,
            concurrency=handler.concurrency,
            processes=processes,
        ),
        dead_letter=chosen.dead_letter_name(channel),
    )


@dataclass(eq=False, slots=True)
class GroupEntry:
    """A message that waits for a group. ``skips`` is how many others it lets pass."""

    sent: Sent
    group: Group
    attempt: int = 1
    handed: int = 0
    redelivered: bool | None = False
    skips: int = 0
    settled: bool = False

    @property
    def key(self) -> Key | None:
        """The message's key."""
        return self.sent.message.key

    def follows(self, other: GroupEntry) -> bool:
        """True if it lies behind ``other`` in the same partition of a stream."""
        return (
            self.group is other.group
            and self.key == other.key
            and (self is other or self.key is not None)
            and self.sent.number >= other.sent.number
        )


class SimulatedBroker:
    """Everything that is stored and not yet handled. One thread at a time."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self.stored: list[Sent] = []
        self.entries: list[GroupEntry] = []  # in the order in which they came to be
        self.pending: list[GroupEntry] = []
        self.dead: list[tuple[str, Message]] = []  # each with its channel

    def store(self, channel: str, message: Message) -> None:
        """Store a message for every group of ``channel``."""
        sent = Sent(len(self.stored), channel, message)
        self.stored.append(sent)
        for group in self._groups:
            if group.handler.channel == channel:
                self._add(sent, group, len(self.pending))

    def store_copy(self, entry: GroupEntry) -> None:
        """Store ``entry``'s message for its group once more, right behind it."""
        self._add(entry.sent, entry.group, self.pending.index(entry) + 1)

    def _add(self, sent: Sent, group: Group, place: int) -> None:
        entry = GroupEntry(sent, group)
        if group.situation.capabilities.redelivered is Known.NONE:
            entry.redelivered = None
        self.entries.append(entry)
        self.pending.insert(place, entry)

    # ── who is next ──

    def next(self) -> GroupEntry | None:
        """The one to be handled now; the ones that it overtakes are let pass one less."""
        passed: list[GroupEntry] = []
        ready = [entry for entry in self.pending if not self._is_blocked(entry)]
        for entry in ready:
            if entry.skips <= 0:
                for one in passed:
                    one.skips -= 1
                return entry
            passed.append(entry)
        return min(ready, key=lambda one: one.skips, default=None)

    def partner(self, entry: GroupEntry) -> GroupEntry | None:
        """The next message that may be handled at the same time as ``entry``."""
        for other in self.pending:
            if other is entry or other.follows(entry) or self._is_blocked(other):
                continue
            situation = entry.group.situation
            if other.group is not entry.group:
                return other
            if entry.key is None or other.key != entry.key:
                return other
            if situation.processes > 1 and may_overtake(situation, same_key=True):
                return other
        return None

    def _is_blocked(self, entry: GroupEntry) -> bool:
        """True if an earlier one of its group must go first."""
        for other in self.pending:
            if other.group is not entry.group or other.sent.number >= entry.sent.number:
                continue
            keeps_order = entry.group.situation.capabilities.order is Order.KEY
            if keeps_order and entry.follows(other):
                return True  # also while the other comes again
            same_key = entry.key is not None and entry.key == other.key
            if entry.handed == other.handed == 0 and not may_overtake(
                entry.group.situation, same_key=same_key
            ):
                return True
        return False

    # ── what becomes of them ──

    def give_back(self, entry: GroupEntry, *, skips: int = 0) -> None:
        """``entry`` waits again: before the others, but for ``skips`` of them."""
        entry.settled = False
        entry.skips = skips
        if entry not in self.pending:
            self.pending.insert(0, entry)
            if entry.group.situation.semantics is Semantics.STREAM:
                self.pending.sort(key=lambda one: one.sent.number)

    def rewind(self, entry: GroupEntry) -> None:
        """``entry`` and all of its partition that was handled after it waits again, in order."""
        for one in self.entries:
            if one.settled and one.follows(entry):
                self.give_back(one)

    def settle(self, entry: GroupEntry) -> None:
        """``entry`` is done with."""
        entry.settled = True
        if entry in self.pending:
            self.pending.remove(entry)

    def bury(self, entry: GroupEntry) -> None:
        """``entry`` goes to the dead letters, where other handlers may wait for it."""
        self.settle(entry)
        message = entry.sent.message
        self.dead.append((entry.sent.channel, message))
        if entry.group.dead_letter is not None:
            self.store(entry.group.dead_letter, message)


class Settling:
    """The Subscription of a delivery in a proof: it settles on the simulated broker."""

    listeners = Listeners()

    def __init__(self, broker: SimulatedBroker, entry: GroupEntry) -> None:
        self.policy = entry.group.policy
        self._broker = broker
        self._entry = entry

    def ack(self, entry: Entry) -> str:
        """See Delivery.ack."""
        self._broker.settle(self._entry)
        return "ack"

    def retry(self, entry: Entry, delay_s: float | None, reason: str | None) -> str:
        """See Delivery.retry. Its delay is over once nothing else waits."""
        retry: RetryPolicy = self.policy.retry
        if retry.exhausted(entry.attempts):
            why = f": {reason}" if reason else ""
            return self.reject(entry, f"gave up after {entry.attempts} attempts{why}")
        wait_s = retry.wait_s(entry.attempts, delay_s)
        self._entry.attempt += 1
        if self._entry.redelivered is not None:
            self._entry.redelivered = True
        self._broker.give_back(self._entry, skips=1_000_000 if wait_s > 0 else 0)
        return "retry"

    def reject(self, entry: Entry, reason: str) -> str:
        """See Delivery.reject."""
        self._broker.bury(self._entry)
        return "reject"

    def entry(self) -> Any:
        """What core makes of the message."""
        entry = self._entry
        position = None
        if entry.group.situation.semantics is Semantics.STREAM:
            position = Position(0, entry.sent.number)
        return Entry(entry.sent.message, None, position, entry.attempt, entry.redelivered)
