"""The receiving side of a channel: deliveries for one member of one group."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, get_args

from gearshift._core.clients import Client, forked, refuse_in_event_loop, refuse_to_receive_none
from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.subscription import Subscription
from gearshift.delivery import BaseDelivery, Delivery
from gearshift.driver import Start, StartAt
from gearshift.errors import Closed, ConfigError, DeadlineExceeded, GearshiftError, NotSupported

__all__ = ["Consumer", "ConsumerOptions", "StartName", "as_start"]

T = TypeVar("T")
DeliveryT = TypeVar("DeliveryT", bound=BaseDelivery[Any])

StartName: TypeAlias = Literal["earliest", "latest"]


class ConsumerOptions(TypedDict, total=False):
    """The keywords of ``Bus.consumer``, which says what they are, but for ``value_type``."""

    group: str | None
    prefetch: int | None
    start: Start | StartName
    ephemeral: bool
    serial_keys: bool
    rate_limit: str | None
    requires: Sequence[str]
    create: bool | None
    timeout_s: float


def as_start(start: Start | StartName) -> Start:
    """The Start of that name. Raises ConfigError for another."""
    if isinstance(start, Start):
        return start
    if start not in get_args(StartName):
        hint = '"earliest", "latest", Start.at_offsets(...) or Start.at_time(...)'
        raise ConfigError(f"start {start!r} is not known", hint=hint)
    return Start(StartAt(start))


class Consumer(Client, Generic[T]):
    """Receives from one channel as a member of one group. Made by ``Bus.consumer``.

    Every method may be called from any thread. A background thread talks to the broker, so slow
    handling loses neither connection nor lease; at most ``prefetch`` deliveries are unsettled.
    """

    def __init__(self, subscription: Subscription, *, owner: object) -> None:
        super().__init__(subscription, subscription.policy.channel, owner)
        self._subscription = subscription
        self._users = subscription.users
        self._policy = subscription.policy

    @property
    def group(self) -> str:
        """The name of the group."""
        return self._policy.group

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions of a stream that this consumer owns now; empty on a queue."""
        return self._users.window.owned

    @property
    def unsettled(self) -> int:
        """Messages that this consumer has received and not settled, handed out or not."""
        return self._users.unsettled

    def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until this consumer is connected, assigned and positioned.

        Raises DeadlineExceeded after ``timeout_s`` seconds.
        """
        if not self._users.wait_ready(timeout_s):
            late = f"the consumer is not ready after {timeout_s} s"
            raise self._located(DeadlineExceeded(late))

    def receive(
        self, max_messages: int = 1, *, timeout_s: float | None = None
    ) -> list[Delivery[T]]:
        """Up to ``max_messages`` deliveries as soon as there is one.

        Blocks for at most ``timeout_s`` seconds (None: until something comes) and returns an empty
        list if nothing came. Raises Closed, and what has ended the consumer for good; a lost
        connection is not raised but healed.
        """
        refuse_in_event_loop("receive", instead="a worker thread")
        refuse_to_receive_none(max_messages)
        return self._receive(max_messages, timeout_s)

    def iterate(self, *, idle_timeout_s: float | None = None) -> Iterator[Delivery[T]]:
        """Deliveries one by one; ends when none came for ``idle_timeout_s`` or on ``close``."""
        refuse_in_event_loop("receive", instead="a worker thread")
        while True:
            try:
                deliveries = self._receive(1, idle_timeout_s)
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

    def seek(self, start: Start | StartName, *, timeout_s: float = 30.0) -> None:
        """Continue at ``start``, which is as for ``Bus.consumer``. Streams only.

        Deliveries in hand become stale. Blocks for at most ``timeout_s`` seconds. Raises
        NotSupported on a queue, DeadlineExceeded, and what the broker refuses.
        """
        if not self._policy.can_seek:
            hint = 'use a channel with semantics = "stream"'
            raise self._located(NotSupported("a queue has no history to seek in", hint=hint))
        try:
            self._subscription.loop.seek(as_start(start), timeout_s)
        except GearshiftError:
            raise
        except TimeoutError:
            late = f"the consumer has not sought after {timeout_s} s"
            raise self._located(DeadlineExceeded(late)) from None

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until the driver knows of everything settled so far.

        Raises DeadlineExceeded after ``timeout_s`` seconds.
        """
        if not self._users.wait_settled(timeout_s):
            late = f"the broker was not told of every settlement after {timeout_s} s"
            raise self._located(DeadlineExceeded(late))

    def stop_receiving(self) -> None:
        """Hand out nothing more: ``receive`` raises Closed, ``iterate`` ends, in every thread.

        What is in hand can still be settled. The first half of an orderly ``close``.
        """
        self._subscription.stop_receiving()

    def close(self, timeout_s: float = 30.0) -> list[str | None]:
        """Stop receiving, finish dead letters, tell the broker what is settled, and close.

        Deliveries in hand that are not settled are not waited for: their ids are returned, and
        they come again. Idempotent. Blocks for about ``timeout_s`` seconds at most.
        """
        return self._subscription.close(timeout_s)

    def __repr__(self) -> str:
        return f"<Consumer of {self.channel!r} in group {self.group!r}>"

    def _located(self, error: GearshiftError) -> GearshiftError:
        return error.located(backend=self._policy.backend, channel=self.channel)

    def _receive(self, max_messages: int, timeout_s: float | None) -> list[Delivery[T]]:
        self._check_process()
        return self._handed_out(self._subscription.receive(max_messages, timeout_s), Delivery)

    def _check_process(self) -> None:
        if os.getpid() != self._subscription.pid:
            raise forked("consumer")

    def _handed_out(self, entries: Sequence[Entry], kind: type[DeliveryT]) -> list[DeliveryT]:
        """Deliveries of that kind, of which the plugins are told."""
        deliveries = [kind(self._subscription, entry, entry.retries) for entry in entries]
        received = self._subscription.listeners.received
        if received is not None:
            for delivery in deliveries:
                received(delivery=delivery)
        return deliveries

    def _drained(self) -> bool | None:
        """As the driver's ``drained``, since a moment."""
        return self._users.drained

    def _record_handler_limit(self, messages: int) -> None:
        """A worker's handlers take so many messages at once."""
        self._users.handler_limit = messages

    def _record_handled(self, outcome: str, seconds: float) -> None:
        """A worker's handler has taken ``seconds`` for a delivery that ended as ``outcome``."""
        self._users.record_handled(outcome, seconds)
