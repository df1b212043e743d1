"""Backends that are broken on purpose, each in one way that real ones have been seen to be.

A mutant is the memory backend behind wrappers that change what passes through them, or the portable
layer with one method replaced. Each names the behaviour that must fail and the checker that must
say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Unpack
from unittest.mock import patch

from msgspec import structs

from gearshift._core.consuming.dead_letters import DeadLetters
from gearshift._core.consuming.shared_window import SharedWindow
from gearshift._core.consuming.subscription import Subscription
from gearshift._core.consuming.user_side import UserSide
from gearshift._core.consuming.window import DeliveryWindow
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import (
    BackendPlugin,
    ChannelSpec,
    ConsumerSpec,
    OnOutcomes,
    Outcome,
    Place,
    Received,
    Settlement,
    SettleRequest,
    Stored,
)
from gearshift.driver.helpers import Wrapper
from gearshift.errors import StaleDelivery
from gearshift.message import NO_HEADERS, Changes, Headers, Message, Receipt, Semantics
from gearshift.producer import Producer

__all__ = ["MUTANTS", "Mutant"]

QUEUE, STREAM = Semantics.QUEUE, Semantics.STREAM


class Backend(Wrapper):
    """A backend whose drivers are wrapped; what they share lives here."""

    producer_type: type[Wrapper] = Wrapper
    consumer_type: type[Wrapper] = Wrapper
    admin_type: type[Wrapper] = Wrapper

    def admin(self) -> Any:
        return self.admin_type(self.inner.admin())

    def producer(self, channel: ChannelSpec) -> Any:
        return self.producer_type(self.inner.producer(channel))

    def queue_consumer(self, spec: ConsumerSpec) -> Any:
        return self.consumer_type(self.inner.queue_consumer(spec))

    def log_consumer(self, spec: ConsumerSpec, events: Any) -> Any:
        return self.consumer_type(self.inner.log_consumer(spec, events))


# ── Consumers ────────────────────────────────────────────────────────────────────────────────────


def _with(received: Received, **changes: Unpack[Changes]) -> Received:
    return structs.replace(received, message=received.message.replace(**changes))


class Receiving(Wrapper):
    """Changes each message as it comes."""

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        return [self.alter(one) for one in self.inner.receive(max_messages, timeout_s)]

    def alter(self, received: Received) -> Received:
        return received


class AcksFirst(Wrapper):
    """Settles on receipt, and forgets what it is told later."""

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        found = self.inner.receive(max_messages, timeout_s)
        self.inner.settle([SettleRequest(one.token, Settlement.ACK) for one in found])
        return found

    def settle(self, requests: Sequence[SettleRequest]) -> list[Any]:
        return []


class RetryDrops(Wrapper):
    """Takes a retry for an ack."""

    def settle(self, requests: Sequence[SettleRequest]) -> Any:
        return self.inner.settle([self._dropped(one) for one in requests])

    def _dropped(self, one: SettleRequest) -> SettleRequest:
        return (
            structs.replace(one, settlement=Settlement.ACK)
            if one.settlement is Settlement.RETRY
            else one
        )


class RetryCapped(RetryDrops):
    """Gives up in silence after the fifth attempt."""

    def _dropped(self, one: SettleRequest) -> SettleRequest:
        return super()._dropped(one) if (one.attempt or 0) >= 5 else one


class LosesKeyOnRedelivery(Receiving):
    def alter(self, received: Received) -> Received:
        if not received.redelivered:
            return received
        return _with(received, key=None)


class LosesHeadersOnRedelivery(Receiving):
    def alter(self, received: Received) -> Received:
        if not received.redelivered:
            return received
        return _with(received, headers=NO_HEADERS)


class SwapsNeighbours(Wrapper):
    """The first two messages of one key in a batch change places."""

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        found = list(self.inner.receive(max_messages, timeout_s))
        for n in range(len(found) - 1, 0, -1):
            for m in range(n):
                if found[m].message.key == found[n].message.key:
                    found[m], found[n] = found[n], found[m]
                    return found
        return found


class CloseCounts(Wrapper):
    """What its consumer holds when it closes has failed."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.tokens: dict[Any, None] = {}

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        found: Sequence[Received] = self.inner.receive(max_messages, timeout_s)
        self.tokens |= dict.fromkeys(one.token for one in found)
        return found

    def settle(self, requests: Sequence[SettleRequest]) -> Any:
        for request in requests:
            self.tokens.pop(request.token, None)
        return self.inner.settle(requests)

    def close(self, timeout_s: float) -> None:
        self.inner.settle([SettleRequest(token, Settlement.RETRY) for token in self.tokens])
        self.inner.close(timeout_s)


class CloseForgets(Receiving):
    """Attempts count from one again with each consumer."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.before: dict[str | None, int] = {}

    def alter(self, received: Received) -> Received:
        attempt = received.attempt or 1
        before = self.before.setdefault(received.message.id, attempt - 1)
        return structs.replace(received, attempt=attempt - before)


class AttemptNeverRises(Receiving):
    def alter(self, received: Received) -> Received:
        return structs.replace(received, attempt=1)


class NeverFlags(Receiving):
    """Says of every message that it comes for the first time."""

    def alter(self, received: Received) -> Received:
        return structs.replace(received, redelivered=False)


class SevenBits(Receiving):
    def alter(self, received: Received) -> Received:
        body = bytes(byte & 0x7F for byte in received.message.body or b"")
        return _with(received, body=body)


class Phantom(Receiving):
    """The first message after connecting comes with one that nobody sent."""

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        found = list(super().receive(max_messages, timeout_s))
        if found and not vars(self).setdefault("done", False):
            self.done = True
            ghost = Message(b"boo", id="ghost", timestamp_ms=0)
            found.append(structs.replace(found[0], message=ghost))
        return found


class CommitsAhead(Wrapper):
    """Commits what it has read, whatever is settled."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.read: dict[int, int] = {}

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        found = self.inner.receive(max_messages, timeout_s)
        for one in found:
            self.read[one.position.partition] = one.position.offset + 1
        return found

    def commit(self, positions: Mapping[int, Place]) -> None:
        ahead = {p: Place(self.read.get(p, at), at.note) for p, at in positions.items()}
        self.inner.commit(ahead)


class AcksThrough(Wrapper):
    """Takes every ack for one of all that came before."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.held: list[Any] = []

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        found = self.inner.receive(max_messages, timeout_s)
        self.held += [one.token for one in found]
        return found

    def settle(self, requests: Sequence[SettleRequest]) -> Any:
        for one in requests:
            last = self.held.index(one.token) + 1
            self.inner.settle([SettleRequest(token, Settlement.ACK) for token in self.held[:last]])
            del self.held[:last]
        return []


class CloseAcks(AcksThrough):
    """Acks what is in hand when it is closed."""

    def settle(self, requests: Sequence[SettleRequest]) -> Any:
        return self.inner.settle(requests)

    def close(self, timeout_s: float) -> None:
        self.inner.settle([SettleRequest(token, Settlement.ACK) for token in self.held])
        self.inner.close(timeout_s)


class TakesAway(Wrapper):
    """What is in hand for half a second goes to others, though its consumer is at work on it."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.since: dict[Any, float] = {}

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        now = time.monotonic()
        late = [token for token, at in self.since.items() if now - at > 0.5]
        for token in late:
            del self.since[token]
        self.inner.settle([SettleRequest(token, Settlement.RELEASE) for token in late])
        found = self.inner.receive(0 if late else max_messages, timeout_s)
        self.since |= {one.token: now for one in found}
        return found

    def settle(self, requests: Sequence[SettleRequest]) -> Any:
        for one in requests:
            self.since.pop(one.token, None)
        return self.inner.settle(requests)


class SeekDoesNothing(Wrapper):
    def seek(self, start: Any) -> None:
        pass


# ── Producers ────────────────────────────────────────────────────────────────────────────────────


class Sending(Wrapper):
    """Changes what is stored, not how many outcomes there are."""

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        stored = self.chosen(messages)
        self.inner.submit(stored, lambda outcomes: None)
        on_outcomes([Outcome(number, Stored.YES) for number in range(len(messages))])

    submit_served = submit

    def chosen(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages)


class Doubles(Sending):
    def chosen(self, messages: Sequence[Message]) -> list[Message]:
        return [copy for message in messages for copy in (message, message)]


class LosesSome(Sending):
    """Of the third of a batch, and of every batch of one that has an odd number, only the receipt
    remains."""

    count = 0

    def chosen(self, messages: Sequence[Message]) -> list[Message]:
        self.count += 1
        return [m for n, m in enumerate(messages, self.count) if n % 3]


class CollapsesHeaders(Sending):
    def chosen(self, messages: Sequence[Message]) -> list[Message]:
        return [m.replace(headers=Headers(dict(m.headers))) for m in messages]


class OkBeforeStored(Sending):
    """Stores a batch when the next one comes, or on close."""

    waiting: Sequence[Message] = ()

    def chosen(self, messages: Sequence[Message]) -> list[Message]:
        due, self.waiting = list(self.waiting), messages
        return due

    def close(self, timeout_s: float) -> None:
        self.inner.submit(list(self.waiting), lambda outcomes: None)
        self.inner.close(timeout_s)


# ── Administration ───────────────────────────────────────────────────────────────────────────────


class CreatesTypos(Wrapper):
    def exists(self, channel: ChannelSpec) -> bool:
        self.inner.declare(channel)
        return True


class PurgeDoesNothing(Wrapper):
    def purge(self, channel: ChannelSpec, group: str) -> int:
        return 0


class DepthIsZero(Wrapper):
    def groups(self, channel: ChannelSpec) -> Any:
        return [replace(status, ready=0, lag=0) for status in self.inner.groups(channel)]


class DeleteDoesNothing(Wrapper):
    def delete(self, channel: ChannelSpec) -> None:
        pass


def with_drivers(
    *,
    producer: type[Wrapper] = Wrapper,
    consumer: type[Wrapper] = Wrapper,
    admin: type[Wrapper] = Wrapper,
) -> type[Backend]:
    """A backend type with these drivers."""
    fields = {"producer_type": producer, "consumer_type": consumer, "admin_type": admin}
    return type("Mutated", (Backend,), fields)


class OneGroup(Backend):
    """Whatever group is asked for, it is the first that ever was."""

    first: dict[str, str]

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.first = {}

    def queue_consumer(self, spec: ConsumerSpec) -> Any:
        return self.inner.queue_consumer(self._joined(spec))

    def log_consumer(self, spec: ConsumerSpec, events: Any) -> Any:
        return self.inner.log_consumer(self._joined(spec), events)

    def _joined(self, spec: ConsumerSpec) -> ConsumerSpec:
        return replace(spec, group=self.first.setdefault(spec.channel.name, spec.group))


class KeepsPartitions(Backend):
    """Nobody is told that a partition is taken away."""

    def log_consumer(self, spec: ConsumerSpec, events: Any) -> Any:
        deaf = Wrapper(events)
        deaf.revoked = lambda partitions: {}  # type: ignore[attr-defined]
        return self.inner.log_consumer(spec, deaf)


class EphemeralSteals(Backend):
    """An ephemeral reader works on the group's own messages."""

    def queue_consumer(self, spec: ConsumerSpec) -> Any:
        if spec.ephemeral:
            spec = replace(spec, ephemeral=False, group=spec.channel.groups[0])
        return self.inner.queue_consumer(spec)


class Leaks(Backend):
    """Everything also goes to every other channel."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.channels: dict[str, ChannelSpec] = {}

    def producer(self, channel: ChannelSpec) -> Any:
        self.channels[channel.name] = channel
        backend = self

        class Everywhere(Sending):
            def chosen(self, messages: Sequence[Message]) -> list[Message]:
                for other in backend.channels.values():
                    if other.name != channel.name:
                        backend.inner.producer(other).submit(messages, lambda outcomes: None)
                return list(messages)

        return Everywhere(self.inner.producer(channel))


# ── The portable layer ───────────────────────────────────────────────────────────────────────────


@contextmanager
def sends_after_close() -> Iterator[None]:
    """A closed producer hands out receipts."""
    original = Producer.send

    def send(self: Producer, value: Message, **fields: Any) -> Receipt:
        if self.closed:
            return Receipt(str(value.id), self.channel)
        return original(self, value, **fields)

    with patch.object(Producer, "send", send):
        yield


@contextmanager
def ignores_prefetch() -> Iterator[None]:
    with patch.object(DeliveryWindow, "room", lambda self: 1000):
        yield


@contextmanager
def seek_says_nothing() -> Iterator[None]:
    """Where there is no seek, it does nothing instead of raising."""
    original = Consumer.seek

    def seek(self: Any, start: Any, **options: Any) -> None:
        if self._policy.can_seek:
            original(self, start, **options)

    with patch.object(Consumer, "seek", seek):
        yield


@contextmanager
def delivers_after_close() -> Iterator[None]:
    """What was fetched can still be received when the consumer is closed."""
    close, receive = Consumer.close, Consumer.receive
    kept: dict[int, list[Any]] = {}

    def closing(self: Any, timeout_s: float = 30.0) -> Any:
        if not self.closed:
            kept[id(self)] = self._users.next(100, 0.0)
        return close(self, timeout_s)

    def receiving(self: Any, max_messages: int = 1, **options: Any) -> Any:
        if self.closed and kept.get(id(self)):
            return [Delivery(self._subscription, entry) for entry in kept.pop(id(self))]
        return receive(self, max_messages, **options)

    with patch.object(Consumer, "close", closing), patch.object(Consumer, "receive", receiving):
        yield


@contextmanager
def stale_ack_is_believed() -> Iterator[None]:
    """An ack that comes too late is answered as if it counted."""
    original = Subscription.ack

    def ack(self: Any, entry: Any) -> str:
        try:
            return original(self, entry)
        except StaleDelivery:
            return "ack"

    with patch.object(Subscription, "ack", ack):
        yield


@contextmanager
def stale_ack_hits_another() -> Iterator[None]:
    """An ack that comes too late settles what somebody else has in hand."""
    original, connected = Subscription.ack, SharedWindow.connected
    windows: list[SharedWindow] = []

    def connect(self: SharedWindow, *arguments: Any, **options: Any) -> None:
        windows.append(self)
        connected(self, *arguments, **options)

    def ack(self: Any, entry: Any) -> str:
        try:
            return original(self, entry)
        except StaleDelivery:
            for users in (UserSide(window) for window in windows):
                for other in users.in_hand():
                    users.settle(other, Settlement.ACK)
            raise

    with patch.object(Subscription, "ack", ack), patch.object(SharedWindow, "connected", connect):
        yield


@contextmanager
def dead_letters_vanish() -> Iterator[None]:
    """The original is settled though its dead letter was stored nowhere."""

    def send(self: Any, message: Message, *, on_done: Callable[[Any], None], **_: Any) -> None:
        on_done(None)

    with patch.object(DeadLetters, "send", send):
        yield


class HoldsTooMuch(Backend):
    """The broker hands over whatever there is."""

    def queue_consumer(self, spec: ConsumerSpec) -> Any:
        return self.inner.queue_consumer(replace(spec, prefetch=1000))


@dataclass(frozen=True, slots=True)
class Mutant:
    """``name`` says what is broken; ``behaviour`` must fail, by ``checker``."""

    name: str
    semantics: Semantics
    behaviour: str
    checker: str
    backend: type[Backend] = Backend
    patched: Callable[[], AbstractContextManager[None]] = nullcontext

    def plugin(self, original: BackendPlugin) -> BackendPlugin:
        """``original`` with this damage."""
        return replace(original, connect=lambda settings: self.backend(original.connect(settings)))


def _mutants() -> Iterator[Mutant]:
    def of(**drivers: Any) -> type[Backend]:
        return with_drivers(**drivers)

    yield Mutant(
        "acks before the handler",
        QUEUE,
        "unsettled_work_returns_when_its_consumer_closes",
        "unsettled-lost",
        of(consumer=AcksFirst),
    )
    yield Mutant(
        "retry drops",
        QUEUE,
        "a_retried_message_comes_again_unchanged",
        "lost",
        of(consumer=RetryDrops),
    )
    yield Mutant(
        "key lost on redelivery only",
        QUEUE,
        "a_second_delivery_is_flagged",
        "changed",
        of(consumer=LosesKeyOnRedelivery),
    )
    yield Mutant(
        "headers lost on redelivery only",
        QUEUE,
        "a_retried_message_comes_again_unchanged",
        "changed",
        of(consumer=LosesHeadersOnRedelivery),
    )
    for semantics in (QUEUE, STREAM):
        yield Mutant(
            "adjacent same-key messages swapped",
            semantics,
            "one_consumer_gets_each_key_in_order",
            "first-delivery-order",
            of(consumer=SwapsNeighbours),
        )
        yield Mutant(
            "bytes over 0x7f changed",
            semantics,
            "bodies_arrive_to_the_byte",
            "changed",
            of(consumer=SevenBits),
        )
        yield Mutant(
            "doubled with the flag false",
            semantics,
            "a_send_that_returned_is_delivered",
            "unflagged-duplicate",
            of(producer=Doubles, consumer=NeverFlags),
        )
        yield Mutant(
            "some receipts are false",
            semantics,
            "a_send_that_returned_is_delivered",
            "lost",
            of(producer=LosesSome),
        )
        yield Mutant(
            "ok before durable",
            semantics,
            "a_receipt_means_stored_already",
            "false-success",
            of(producer=OkBeforeStored),
        )
        yield Mutant(
            "typo created",
            semantics,
            "a_missing_channel_is_an_error",
            "typo-created",
            of(admin=CreatesTypos),
        )
        yield Mutant(
            "group name ignored", semantics, "every_group_gets_every_message", "lost", OneGroup
        )
        yield Mutant(
            "phantom on reconnect",
            semantics,
            "a_send_that_returned_is_delivered",
            "phantom",
            of(consumer=Phantom),
        )
        yield Mutant(
            "repeated headers collapsed",
            semantics,
            "keys_and_headers_arrive_as_sent",
            "changed",
            of(producer=CollapsesHeaders),
        )
        yield Mutant("channels leak", semantics, "channels_do_not_mix", "leak", Leaks)
        yield Mutant(
            "purge does nothing",
            semantics,
            "a_purge_throws_away_what_waits",
            "phantom",
            of(admin=PurgeDoesNothing),
        )
        yield Mutant(
            "depth is always zero",
            semantics,
            "a_receipt_means_stored_already",
            "false-success",
            of(admin=DepthIsZero),
        )
        yield Mutant(
            "publish after close says ok",
            semantics,
            "a_send_after_close_raises",
            "publish-after-close",
            patched=sends_after_close,
        )
        yield Mutant(
            "prefetch ignored",
            semantics,
            "no_more_than_prefetch_is_unsettled",
            "over-prefetch",
            HoldsTooMuch,
            ignores_prefetch,
        )
        yield Mutant(
            "delivers after close",
            semantics,
            "what_was_fetched_is_not_delivered_after_close",
            "after-close",
            patched=delivers_after_close,
        )
        yield Mutant(
            "stale ack is believed",
            semantics,
            "a_stale_settlement_touches_nothing",
            "stale-settle",
            patched=stale_ack_is_believed,
        )
        yield Mutant(
            "dead letters vanish",
            semantics,
            "a_rejected_message_becomes_a_dead_letter",
            "dead-letter",
            patched=dead_letters_vanish,
        )
    yield Mutant(
        "delete does nothing",
        QUEUE,
        "a_deleted_channel_is_gone",
        "error",
        of(admin=DeleteDoesNothing),
    )
    yield Mutant(
        "out-of-order ack advances past an unacked message",
        STREAM,
        "settling_out_of_order_loses_nothing",
        "position-past-unsettled",
        of(consumer=CommitsAhead),
    )
    yield Mutant(
        "an ack takes earlier ones with it",
        QUEUE,
        "settling_out_of_order_loses_nothing",
        "unsettled-lost",
        of(consumer=AcksThrough),
    )
    yield Mutant(
        "close acks what is in hand",
        QUEUE,
        "unsettled_work_returns_when_its_consumer_closes",
        "unsettled-lost",
        of(consumer=CloseAcks),
    )
    yield Mutant(
        "stale ack settles another message",
        QUEUE,
        "a_stale_settlement_touches_nothing",
        "unsettled-lost",
        patched=stale_ack_hits_another,
    )
    yield Mutant(
        "declares no seek, then does nothing instead of raising",
        QUEUE,
        "seek_to_the_start_reads_everything_again",
        "refusal",
        patched=seek_says_nothing,
    )
    yield Mutant(
        "seek does nothing",
        STREAM,
        "seek_to_the_start_reads_everything_again",
        "lost",
        of(consumer=SeekDoesNothing),
    )
    yield Mutant(
        "redelivery capped at five",
        QUEUE,
        "a_hundred_retries_keep_the_message",
        "lost",
        of(consumer=RetryCapped),
    )
    yield Mutant(
        "close counts as one",
        QUEUE,
        "a_close_neither_costs_nor_forgets_attempts",
        "attempt-count",
        of(consumer=CloseCounts),
    )
    yield Mutant(
        "attempts reset by close",
        QUEUE,
        "a_close_neither_costs_nor_forgets_attempts",
        "attempt-count",
        of(consumer=CloseForgets),
    )
    yield Mutant(
        "attempt never rises",
        QUEUE,
        "a_retried_message_comes_again_unchanged",
        "attempt-count",
        of(consumer=AttemptNeverRises),
    )
    yield Mutant(
        "redelivered never flagged",
        QUEUE,
        "a_second_delivery_is_flagged",
        "unflagged-duplicate",
        of(consumer=NeverFlags),
    )
    yield Mutant(
        "lease not renewed",
        QUEUE,
        "a_slow_handler_keeps_its_delivery",
        "lease",
        of(consumer=TakesAway),
    )
    yield Mutant(
        "two members own a partition",
        STREAM,
        "many_consumers_get_each_key_in_order",
        "partition-owners",
        KeepsPartitions,
    )
    yield Mutant(
        "an ephemeral reader takes from a group",
        QUEUE,
        "an_ephemeral_reader_takes_nothing_and_leaves_nothing",
        "lost",
        EphemeralSteals,
    )


MUTANTS = tuple(_mutants())
