"""The queue driver: one consumer of one queue, driven by the thread that calls ``receive``."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs
from pika import exceptions

from gearshift.driver import ConsumerSpec, QueueDriver, Received, SettleFailure, SettleRequest
from gearshift.errors import UnknownChannel
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.queue.broker_dead_letters import GivenUp
from gearshift_rabbitmq.queue.consumer_timeout import ConsumerTimeout
from gearshift_rabbitmq.queue.copies import Copies
from gearshift_rabbitmq.queue.leader import LeaderCheck
from gearshift_rabbitmq.queue.names import QueueNames, undeliverable
from gearshift_rabbitmq.queue.own_returns import OwnReturns
from gearshift_rabbitmq.queue.suspects import Suspects
from gearshift_rabbitmq.queue.topology import declare_ephemeral
from gearshift_rabbitmq.queue.unsettled import Unsettled
from gearshift_rabbitmq.rpc import Rpc, find
from gearshift_rabbitmq.settings import CONSUMER_TIMEOUT_S
from gearshift_rabbitmq.subscription import Subscription
from gearshift_rabbitmq.wire.decoding import received

__all__ = ["QueueConsumer"]

logger = logging.getLogger("gearshift.rabbitmq.consumer")

#: How many messages the broker may push until core asks for more, when it knows their size.
_FIRST_WINDOW = 8

#: How long what is held may still be settled once the subscription has ended. Seconds.
_SETTLE_S = 10.0

#: The broker ends the subscriptions of a deleted queue before it forgets the queue. Seconds.
_FORGET_S = 0.3


class QueueConsumer(QueueDriver):
    """One queue's consumer. Heartbeats are answered inside ``receive``.

    Every RETRY is stored again with its count in ``gearshift-attempt``: the broker's own count
    also rises, before 4.3, with each return of a message that nobody has worked on. What comes
    back for another reason is set aside among the suspects (see ``suspects``), but not what this
    process itself has returned (see ``own_returns``).

    The broker takes back what is unsettled for ``consumer_timeout_s``, and before 4.3 all else with
    it. So this driver gives it back before that; from 4.3 on the broker gets that time as the
    consumer's own, and takes back that one alone.
    """

    cumulative_ack = True
    _isolates = True

    def __init__(
        self,
        connect: Callable[[str], Connection],
        spec: ConsumerSpec,
        own_returns: OwnReturns | None = None,
        *,
        consumer_timeout_s: float = CONSUMER_TIMEOUT_S,
    ) -> None:
        """Connect and consume. Raises pika's error; 404 if the group's queue is not there."""
        self._spec = spec
        self._names = QueueNames.of(spec.channel)
        self._own_returns = own_returns or OwnReturns(spec.prefetch)
        self._limit = ConsumerTimeout(consumer_timeout_s, spec.channel.max_processing_s or 0.0)
        self._name = f"{spec.channel.name}/{spec.group}"
        self._is_adopted = self._names.adopted_queue is not None
        self._is_ours = not self._is_adopted and not spec.ephemeral
        self._ready: deque[Received] = deque()  # received, not given to core
        self._last_tag = 0
        self._cancelled_at: float | None = None
        self._is_cancel_logged = False
        self._closed = False
        self._woken = False
        self._reason: Exception | None = None
        self._connection = connect(f"consumer {self._name}")
        try:
            self._start(connect)
        except BaseException:
            self._connection.close(1.0)
            raise

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        """See QueueDriver. Raises UnknownChannel when the queue was deleted, ConsumerCancelled when
        the broker has ended the subscription for another reason."""
        deadline = time.monotonic() + timeout_s
        wanted = len(self._unsettled) + max_messages
        step = self._connection.step
        step(0.0)
        if self._connection.has_other_nodes and self._is_subscribed():
            self._leader.look()
        while True:
            self._unsettled.finish_copies()
            self._return_what_is_over()
            self._end_if_cancelled()
            if not self._channel.is_open:
                raise self._reason or exceptions.ChannelWrongStateError(
                    "the AMQP channel is closed"
                )
            remaining = deadline - time.monotonic()
            may_take = max_messages and self._cancelled_at is None
            found = self._unsettled.take_unstored() or (
                self._take(max_messages) if may_take else ()
            )
            self._fit(wanted)
            if found or self._woken or remaining <= 0:
                self._woken = False
                return found
            step(remaining)

    @property
    def heard_at(self) -> float:
        return self._connection.heard_at

    def isolate(self, wanted: bool) -> None:
        self._isolates = wanted

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        failures: list[SettleFailure] = []
        with self._connection.gathered():
            self._return_what_is_over()  # or an ack of all up to a later one would cover it
            for request in requests:
                if self._is_open():
                    failure = self._unsettled.settle(request)
                else:
                    failure = self._connection.error or self._reason
                if failure is not None:
                    failures.append(SettleFailure(request.token, failure))
        return failures

    def wake(self) -> None:
        self._woken = True
        self._connection.wake()

    def close(self, timeout_s: float) -> None:
        """See QueueDriver. Waits for copies being stored, and gives back the rest."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        if self._is_open():
            self._unsettled.set_aside_lost(self._suspects.left())
        elif not self._connection.stood_still:  # else one of them may have been the cause
            self._own_returns.connection_broke(self._held())
        self._copies.close(timeout_s / 2)
        self._unsettled.finish_copies()
        # Else what is given back would come again to the subscription that is about to begin.
        while self._subscription.is_starting and self._is_open() and time.monotonic() < deadline:
            self._connection.step(max(0.0, deadline - time.monotonic()))
        self._give_back_all()
        self._connection.close(max(0.5, deadline - time.monotonic()))
        self._ready.clear()
        self._unsettled.messages.clear()

    # ── subscribing ──────────────────────────────────────────────────────────────────────────

    def _start(self, connect: Callable[[str], Connection]) -> None:
        names, spec = self._names, self._spec
        rpc = Rpc(self._connection)
        self._channel = rpc.channel
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_cancel_callback(self._on_cancel)
        if spec.ephemeral:
            self._queue = suspects = declare_ephemeral(rpc, names)
        else:
            self._queue, suspects = names.queue(spec.group), names.suspects(spec.group)
        self._suspects = Suspects(
            self._connection,
            self._channel,
            suspects,
            is_ours=self._is_ours,
            receive=self._received,
            store=lambda one: self._unsettled.set_aside(one),
            on_end=self._subscribe,
        )
        self._given_up = GivenUp(self._connection, self._queue)
        self._copies = Copies(
            connect,
            self._queue,
            suspects,
            native=names.native,
            name=self._name,
            wake=self._connection.wake,
        )
        self._unsettled = Unsettled(
            self._channel,
            self._copies,
            self._own_returns,
            is_adopted=self._is_adopted,
            keep_suspect=self._suspects.keep,
        )
        self._leader = LeaderCheck(
            self._connection,
            self._queue,
            lambda: (self._subscription.tag, self._last_tag),
            self._undeliverable_if_idle,
        )
        window = min(spec.prefetch, _FIRST_WINDOW) if self._is_ours else spec.prefetch
        self._subscription = Subscription(
            rpc, self._queue, self._on_message, name=spec.member, window=window
        )
        self._suspects.active = self._suspects.look()
        # The broker refuses it on a queue that has no such limit.
        limit = {"x-consumer-timeout": round(self._limit.timeout_s * 1000)} if self._is_ours else {}
        self._subscription.start(limit, now=not self._suspects.active)

    def _subscribe(self) -> None:
        if not self._closed and self._cancelled_at is None:
            self._subscription.restart(after=self._last_tag)

    def _isolate(self) -> None:
        """Stop being given more; the suspects come first."""
        if not self._suspects.active:
            self._suspects.active = True
            self._subscription.stop()

    def _is_subscribed(self) -> bool:
        """Whether a subscription stands, as far as is known."""
        is_changing = self._suspects.active or self._subscription.is_starting
        return not is_changing and self._cancelled_at is None

    def _fit(self, wanted: int) -> None:
        """Have the broker push about as many as core has room for, which goes by their size.

        The order would be lost if two subscriptions were there at once, and also if anything was on
        its way when the first one ends: the broker takes that back. So it ends only while all that
        it allows is here. An ephemeral queue would be deleted with it, and in an adopted one
        another consumer may wait for its turn.
        """
        subscription = self._subscription
        if not (self._is_ours and wanted and not subscription.fits(wanted)):
            return
        unsettled = self._unsettled
        held = [*unsettled.messages, *unsettled.aside, *(one.token.tag for one in self._ready)]
        is_full = sum(tag > subscription.began_after for tag in held) >= subscription.window
        if is_full and self._is_subscribed():
            subscription.resize(wanted, len(held))
            self._subscribe()

    def _undeliverable_if_idle(self) -> str | None:
        is_idle = not (self._unsettled or self._ready or self._unsettled.aside)
        return undeliverable(self._queue) if self._is_ours and is_idle else None

    def _is_open(self) -> bool:
        return self._connection.error is None and bool(self._channel.is_open)

    def _give_back_all(self) -> None:
        """Once: while subscribed, what goes back comes again at once, and each return counts."""
        if not self._is_open():
            return
        with self._connection.gathered():
            if self._cancelled_at is None and not self._suspects.active:
                self._subscription.stop()
            self._own_returns.add(self._held())
            # What came while the subscription ended is covered too: 0 is all that is unsettled.
            self._channel.basic_nack(0, multiple=True, requeue=True)

    def _held(self) -> list[Received]:
        return [*self._unsettled.messages.values(), *self._ready]

    def _take(self, max_messages: int) -> Sequence[Received]:
        """What core may have now."""
        ready = self._ready
        if self._is_ours:
            self._given_up.look()
        if not self._suspects.active and self._suspects.look():
            self._isolate()
        in_order = not self._suspects.active
        if self._suspects.active:
            must_wait = (self._unsettled and self._isolates) or self._unsettled.aside
            one = None if must_wait else self._suspects.fetch()
            taken = [one] if one is not None else []
        else:
            taken = [ready.popleft() for _ in range(min(max_messages, len(ready)))]
        if taken:
            self._unsettled.add(taken, in_order=in_order)
        return taken

    def _return_what_is_over(self) -> None:
        """Give back, before the broker does, what was held for too long, and what waits here."""
        if not self._is_open():
            return
        now = time.monotonic()
        while self._ready and (self._ready[0].return_at or now) <= now:
            self._unsettled.give_back(self._ready.popleft())
        if count := self._unsettled.reject_over(self._limit.over(self._held, now)):
            self._warn_of_held(count)

    def _end_if_cancelled(self) -> None:
        """Raise once the broker has ended the subscription and what is held is settled.

        It does so when the queue is gone; from 4.3 on also when it has taken something back. What
        else is held can be settled then, but a new subscription beside it would go short: the
        ended one is given messages for the room that they leave, and they do not come (4.3.6).
        """
        if self._cancelled_at is None:
            return
        since_s = time.monotonic() - self._cancelled_at
        if since_s < _FORGET_S:
            return
        if not self._is_cancel_logged:
            self._require_queue()
            self._is_cancel_logged = True
            self._warn_of_held(1)
        if not self._unsettled or since_s > _SETTLE_S:
            self._require_queue()
            raise exceptions.ConsumerCancelled(
                f"the broker ended the consumer of queue {self._queue!r}, as a message was held "
                "longer than its consumer_timeout"
            )

    def _require_queue(self) -> None:
        if find(self._connection, "queue", self._queue) is None:
            raise UnknownChannel(f"queue {self._queue!r} was deleted")

    def _warn_of_held(self, count: int) -> None:
        logger.warning(
            "%s: %d not settled within %g s or queue %r's own consumer_timeout, which come again: "
            "settle sooner, or raise consumer_timeout_s",
            self._name,
            count,
            self._limit.timeout_s,
            self._queue,
        )

    # ── callbacks of the loop: they must not raise ───────────────────────────────────────────

    def _on_message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        one = self._received(method, properties, body)
        if one.lost and not self._spec.ephemeral:
            self._isolate()
            self._unsettled.set_aside(one)
        else:
            self._ready.append(one)

    def _received(self, method: Any, properties: Any, body: bytes) -> Received:
        self._last_tag = method.delivery_tag
        locked_until, return_at = self._limit.of_new()
        one = received(
            method,
            properties,
            body,
            flag_is_loss=self._is_adopted,
            key_from_routing=self._names.routes_by_key,
            locked_until=locked_until,
            return_at=return_at,
        )
        if one.lost > one.token.lost and self._own_returns.discard(one):
            return structs.replace(one, lost=one.token.lost)
        return one

    def _on_cancel(self, _: Any) -> None:
        """See ``_end_if_cancelled``."""
        if self._cancelled_at is None:
            self._cancelled_at = time.monotonic()
        for tag in self._limit.taken_back(self._held()):
            self._unsettled.messages.pop(tag, None)

    def _on_close(self, _: Any, reason: Exception) -> None:
        self._reason = reason
