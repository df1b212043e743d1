"""The receiving side of a channel: deliveries for one member of one group."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from gearshift._core.clients import Client, forked, refuse_in_event_loop
from gearshift._core.consuming.dead_letters import DeadLetters, redriven_to, revived
from gearshift._core.consuming.inbox import Inbox
from gearshift._core.consuming.loop import ConsumerLoop
from gearshift._core.consuming.retry import RetryPolicy
from gearshift._core.consuming.settlements import Entry
from gearshift._core.consuming.suspects import is_given_up
from gearshift._core.logs import LimitedLog
from gearshift.codecs import Codec, decode
from gearshift.delivery import Delivery
from gearshift.driver import Settlement, Start
from gearshift.errors import (
    Closed,
    DeadlineExceeded,
    GearshiftError,
    NotSupported,
    StaleDelivery,
)
from gearshift.message import Message
from gearshift.stats import ReceiveStats

__all__ = ["Consumer", "ConsumerPolicy", "Subscription"]

log = logging.getLogger("gearshift.consumer")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPolicy:
    """What a consumer does with what it receives.

    ``holds_retries`` says for a delay in seconds whether the portable layer must keep a retried
    message itself, because the backend cannot. One that ``observes`` also sees what was redriven
    to some group alone.
    """

    channel: str
    group: str
    codec: Codec
    retry: RetryPolicy
    dead_letters: DeadLetters | None
    holds_retries: Callable[[float], bool]
    can_seek: bool
    target: Any = Any
    inspects: bool = False
    observes: bool = False
    where: dict[str, str] = field(default_factory=dict)


class Subscription:
    """What a consumer stands on, and closes. Its threads hold this and not the consumer."""

    def __init__(self, loop: ConsumerLoop, inbox: Inbox, policy: ConsumerPolicy) -> None:
        self.loop = loop
        self.inbox = inbox
        self.policy = policy
        self.closed = False
        self.pid = os.getpid()

    def stats(self) -> ReceiveStats:
        """What was received and settled, and how it is now."""
        return replace(self.inbox.snapshot(), reconnects=self.loop.reconnects)

    def close(self, timeout_s: float) -> list[str | None]:
        """See Consumer.close."""
        if self.closed or os.getpid() != self.pid:
            return []
        self.closed = True
        self.inbox.close()
        if self.policy.dead_letters is not None:
            self.policy.dead_letters.close(timeout_s)
        unsettled = [entry.message.id for entry in self.inbox.in_hand()]
        self.loop.stop(timeout_s)
        if unsettled and not self.policy.inspects:
            log.warning(
                "channel %r: closed with %d unsettled deliveries, which will come again",
                self.policy.channel,
                len(unsettled),
            )
        return unsettled


class Consumer(Client, Generic[T]):
    """Receives from one channel as a member of one group. Made by ``Bus.consumer``.

    Every method may be called from any thread. A background thread talks to the broker, so slow
    handling loses neither connection nor lease; at most ``prefetch`` deliveries are unsettled.
    """

    def __init__(self, subscription: Subscription, *, owner: object) -> None:
        super().__init__(subscription, subscription.policy.channel, owner)
        self._subscription = subscription
        self._inbox = subscription.inbox
        self._policy = subscription.policy
        self._log = LimitedLog(log)

    @property
    def group(self) -> str:
        """The name of the group."""
        return self._policy.group

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions of a stream that this consumer owns now; empty on a queue."""
        return self._inbox.owned()

    @property
    def unsettled(self) -> int:
        """Messages that this consumer has received and not settled, handed out or not."""
        return self._inbox.unsettled

    def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until this consumer is connected, assigned and positioned.

        Raises DeadlineExceeded after ``timeout_s`` seconds.
        """
        if not self._inbox.wait_ready(timeout_s):
            raise DeadlineExceeded(
                f"the consumer is not ready after {timeout_s} s", **self._where()
            )

    def receive(
        self, max_messages: int = 1, *, timeout_s: float | None = None
    ) -> list[Delivery[T]]:
        """Up to ``max_messages`` deliveries as soon as there is one.

        Blocks for at most ``timeout_s`` seconds (None: until something comes) and returns an empty
        list if nothing came. Raises Closed, and what has ended the consumer for good; a lost
        connection is not raised but healed.
        """
        refuse_in_event_loop("receive", instead="a worker thread")
        if os.getpid() != self._subscription.pid:
            raise forked("consumer")
        return [Delivery(self, entry) for entry in self._receive_entries(max_messages, timeout_s)]

    def iterate(self, *, idle_timeout_s: float | None = None) -> Iterator[Delivery[T]]:
        """Deliveries one by one; ends when none came for ``idle_timeout_s`` or on ``close``."""
        while True:
            try:
                deliveries = self.receive(timeout_s=idle_timeout_s)
            except Closed:
                return
            if not deliveries:
                return
            yield deliveries[0]

    def __iter__(self) -> Iterator[Delivery[T]]:
        """As ``iterate()``: deliveries one by one until ``close``."""
        return self.iterate()

    def ack(self, delivery: Delivery[T]) -> None:
        """The same as ``delivery.ack()``."""
        delivery.ack()

    def retry(
        self, delivery: Delivery[T], delay_s: float | None = None, *, reason: str | None = None
    ) -> None:
        """The same as ``delivery.retry(...)``."""
        delivery.retry(delay_s, reason=reason)

    def reject(self, delivery: Delivery[T], reason: str = "rejected") -> None:
        """The same as ``delivery.reject(...)``."""
        delivery.reject(reason)

    def seek(self, start: Start, *, timeout_s: float = 30.0) -> None:
        """Continue at ``start``: replay from the beginning, an offset or a time. Streams only.

        Deliveries in hand become stale. Blocks. Raises NotSupported on a queue.
        """
        if not self._policy.can_seek:
            raise NotSupported(
                "a queue has no history to seek in",
                hint='use a channel with semantics = "stream"',
                **self._where(),
            )
        self._subscription.loop.seek(start, timeout_s)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until the driver was told of everything settled so far.

        Raises DeadlineExceeded after ``timeout_s`` seconds.
        """
        if not self._inbox.wait_settled(timeout_s):
            raise DeadlineExceeded(
                f"the broker was not told of every settlement after {timeout_s} s", **self._where()
            )

    def stop_receiving(self) -> None:
        """Hand out nothing more: ``receive`` raises Closed, ``iterate`` ends, in every thread.

        What is in hand can still be settled. The first half of an orderly ``close``.
        """
        self._inbox.close()

    def close(self, timeout_s: float = 30.0) -> list[str | None]:
        """Stop receiving, finish dead letters, tell the broker what is settled, and close.

        Deliveries in hand that are not settled are not waited for: their ids are returned, and
        they come again. Idempotent. Blocks for about ``timeout_s`` seconds at most.
        """
        return self._subscription.close(timeout_s)

    def __repr__(self) -> str:
        return f"<Consumer of {self.channel!r} in group {self.group!r}>"

    # ── for deliveries and workers ──

    def handled(self, outcome: str, seconds: float) -> None:
        """A handler has worked on a delivery for so long; ``outcome`` is how that ended."""
        self._inbox.handled(outcome, seconds)

    def decode(self, message: Message) -> T:
        """The message's value, as ``Delivery.value`` gives it. Raises DecodeError."""
        value: T = decode(
            self._policy.codec,
            message.body,
            message.content_type,
            self._policy.target,
            message.content_encoding,
        )
        return value

    def _ack(self, entry: Entry) -> str:
        """See Delivery.ack; this and its like return the outcome."""
        self._inbox.settle(entry, Settlement.ACK)
        return "ack"

    def _retry(self, entry: Entry, delay_s: float | None, reason: str | None) -> str:
        """See Delivery.retry."""
        if self._policy.retry.exhausted(entry.attempts):
            why = f": {reason}" if reason else ""
            return self._reject(entry, f"gave up after {entry.attempts} attempts{why}")
        wait_s = self._policy.retry.wait_s(entry.attempts, delay_s)
        self._give_back(entry, wait_s)
        self._log.info(
            "%s/%s: message %r: attempt %d of %d failed, again in %.1f s",
            self.channel, self.group, entry.message.id,
            entry.attempts, self._policy.retry.max_attempts, wait_s,
        )  # fmt: skip
        return "retry"

    def _reject(self, entry: Entry, reason: str) -> str:
        """See Delivery.reject."""
        self._inbox.require_live(entry)
        if self._policy.dead_letters is None:
            self._log.error(
                "channel %r: message %r is rejected, and there is no dead-letter channel: %r",
                self.channel,
                entry.message.id,
                reason,
            )
            entry.refused = True
            self._inbox.settle(entry, Settlement.DISCARD)
            return "reject"
        self._policy.dead_letters.send(
            entry.message,
            reason=reason,
            attempts=entry.attempts,
            on_done=lambda error: self._buried(entry, reason, error),
        )
        return "reject"

    def _give_back(self, entry: Entry, wait_s: float) -> None:
        if self._policy.holds_retries(wait_s):
            self._inbox.hold(entry, wait_s)
        else:
            self._inbox.settle(entry, Settlement.RETRY, wait_s)

    def _buried(self, entry: Entry, reason: str, error: GearshiftError | None) -> None:
        try:
            if error is None:
                self._inbox.settle(entry, Settlement.DISCARD)
                self._log.warning(
                    "%s/%s: message %r moved to the dead letters: %s",
                    self.channel, self.group, entry.message.id, reason,
                )  # fmt: skip
                return
            entry.dead = reason
            entry.burials += 1
            wait_s = self._policy.retry.burial_wait_s(entry.burials)
            self._inbox.keep(entry, wait_s, error)
            self._log.error(
                "%s/%s: the dead letter of message %r was not stored, and is tried again in "
                "%.1f s: %s",
                self.channel, self.group, entry.message.id, wait_s, error,
            )  # fmt: skip
        except StaleDelivery:
            self._log.warning("channel %r: message %r was stale", self.channel, entry.message.id)

    # ── inside ──

    def _receive_entries(self, max_messages: int, timeout_s: float | None) -> list[Entry]:
        """Entries worth handing out: one that is dead or has used up its attempts goes on, and
        one that was redriven to another group is settled unseen."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            entries = self._inbox.next(max_messages, left_s)
            ours = [entry for entry in entries if not self._is_for_others(entry)]
            live = [entry for entry in ours if not self._bury_if_ended(entry)]
            if live or not entries:
                return live

    def _is_for_others(self, entry: Entry) -> bool:
        group = redriven_to(entry.message)
        if group is None or self._policy.observes:
            return False
        if group == self.group:
            entry.message = revived(entry.message)  # as it was before it died
            return False
        self._inbox.settle(entry, Settlement.ACK)
        return True

    def _bury_if_ended(self, entry: Entry) -> bool:
        reason = entry.dead or self._given_up(entry)
        if reason is not None:
            with contextlib.suppress(StaleDelivery):  # its connection has gone since
                self._reject(entry, reason)
        return reason is not None

    def _given_up(self, entry: Entry) -> str | None:
        """Why ``entry`` is not handed out for another attempt; None if it is."""
        if not is_given_up(entry.attempts, entry.lost, self._policy.retry.max_attempts):
            return None
        deaths = f": {entry.lost} consumers died with it" if entry.lost else ""
        entry.attempt = entry.attempts - 1  # the one that it came for is not given
        return f"gave up after {entry.attempts} attempts{deaths}"

    def _where(self) -> dict[str, Any]:
        return self._policy.where | {"channel": self.channel}
