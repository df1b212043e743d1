"""The queue driver: one consumer of one queue, driven by the thread that calls ``receive``."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pika import exceptions

from gearshift.driver import (
    ConsumerSpec,
    Outcome,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
    Stored,
    Unstored,
)
from gearshift_rabbitmq.connection import Link, Rpc, unsubscribe
from gearshift_rabbitmq.delay import Retries
from gearshift_rabbitmq.leader import LeaderCheck
from gearshift_rabbitmq.settings import CONSUMER_TIMEOUT_S
from gearshift_rabbitmq.suspects import Suspects
from gearshift_rabbitmq.topology import Topology, declare_ephemeral, undeliverable, waiting
from gearshift_rabbitmq.wire import Token, incoming

__all__ = ["Consumer"]

logger = logging.getLogger("gearshift.rabbitmq.consumer")

#: How many messages the broker may push until core asks for more, when it knows their size.
_FIRST_WINDOW = 8

#: How long what is in hand may still be settled once the subscription has ended. Seconds.
_SETTLE_S = 10.0

#: What was received within so many seconds is one age to a broker that does not say its limit.
_TOGETHER_S = 0.1


class Consumer:
    """A QueueDriver. Heartbeats are answered inside ``receive``.

    Every RETRY is stored again with its count in ``gearshift-attempt``: the broker's own count
    also rises, before 4.3, with each return of a message that nobody has worked on. What comes
    back for another reason is set aside among the suspects (see ``suspects``), but not what this
    process itself has given back, or held over a connection that broke while it did not stand
    still: ``survivors``, which the next driver gets.

    The broker takes back what is unsettled for ``consumer_timeout_s``, and before 4.3 all else with
    it. So this driver gives it back before that; from 4.3 on the broker is told of that time, and
    takes back that one alone.
    """

    cumulative_ack = True
    _isolates = True

    def __init__(
        self,
        connect: Callable[[str], Link],
        spec: ConsumerSpec,
        survivors: set[tuple[str | None, int]] | None = None,
        *,
        consumer_timeout_s: float = CONSUMER_TIMEOUT_S,
    ) -> None:
        """Connect and consume. Raises pika's error; 404 if the group's queue is not there."""
        self._topology = Topology.of(spec.channel)
        self._spec = spec
        self._survivors = set() if survivors is None else survivors
        self._connect = connect
        self._name = f"{spec.channel.name}/{spec.group}"
        self._timeout_s = consumer_timeout_s
        self._margin_s = min(1.0, consumer_timeout_s / 10)
        self._lock_s = consumer_timeout_s - self._margin_s
        spare_s = self._lock_s - (spec.channel.max_processing_s or 0.0)
        #: How long a delivery may wait for somebody who works on it.
        self._wait_s = min(consumer_timeout_s / 2, max(consumer_timeout_s / 10, spare_s))
        self._over_at = 0.0  # nothing that is held is over before
        self._ready: deque[Received] = deque()  # received, not given to core
        self._unsettled: dict[int, Received] = {}  # given to core and unsettled, in that order
        #: Settled last, which the broker may not have heard of when the connection breaks.
        self._recent: deque[tuple[str | None, int]] = deque(maxlen=spec.prefetch)
        self._aside: dict[int, Received] = {}  # being stored among the suspects
        self._retrying: dict[int, SettleRequest] = {}  # being stored for another attempt
        self._returned: list[Received] = []  # whose retry could not be stored
        self._stored: deque[tuple[int, Outcome]] = deque()
        self._retries: Retries | None = None
        self._tags_are_in_order = True
        self._subscriptions = 0
        self._is_adopted = self._topology.adopted_queue is not None
        #: An ephemeral queue would be deleted with its subscription, and in an adopted one somebody
        #: else may wait for his turn.
        self._is_window_fixed = self._is_adopted or spec.ephemeral
        #: How many unsettled messages the subscription allows: those after the tag it began with.
        self._window = spec.prefetch
        if not self._is_window_fixed:
            self._window = min(spec.prefetch, _FIRST_WINDOW)
        self._last_tag = self._subscribed_after = 0
        self._is_subscribing = False
        self._cancelled_at: float | None = None
        self._is_cancel_told = False
        self._closed = False
        self._woken = False
        self._key_from_routing = self._topology.routes_by_key
        self._link = connect(f"consumer {self._name}")
        try:
            self._start()
        except BaseException:
            self._link.close(1.0)
            raise

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        """See QueueDriver. Raises ConsumerCancelled when the broker has ended the subscription."""
        deadline = time.monotonic() + timeout_s
        wanted = len(self._unsettled) + max_messages
        step = self._link.step
        step(0.0)
        self._check_leader()
        while True:
            self._finish_retries()
            self._return_what_is_over()
            self._end_if_cancelled()
            if not self._channel.is_open:
                raise self._reason or exceptions.ChannelWrongStateError(
                    "the AMQP channel is closed"
                )
            remaining = deadline - time.monotonic()
            may_take = max_messages and self._cancelled_at is None
            found = self._take_returned() or (self._take(max_messages) if may_take else ())
            self._fit(wanted)
            if found or self._woken or remaining <= 0:
                self._woken = False
                return found
            step(remaining)

    @property
    def heard_at(self) -> float:
        """See QueueDriver."""
        return self._link.heard_at

    def isolate(self, wanted: bool) -> None:
        """See QueueDriver."""
        self._isolates = wanted

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        """See QueueDriver. A retry stays unacknowledged until its copy is confirmed."""
        failures: list[SettleFailure] = []
        with self._link.gathered():
            self._return_what_is_over()  # or an ack of all up to a later one would cover it
            for request in requests:
                failure = self._settle(request)
                if failure is not None:
                    failures.append(SettleFailure(request.token, failure))
        return failures

    def wake(self) -> None:
        """See QueueDriver. Any thread, also after close."""
        self._woken = True
        self._link.wake()

    def close(self, timeout_s: float) -> None:
        """See QueueDriver. Waits for retries being stored, and gives back the rest."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        if self._is_open():
            self._keep_suspects()
        elif not self._link.stood_still:  # else one of them may have been the cause
            held = (*self._unsettled.values(), *self._ready)
            self._survive(map(_fingerprint, held))
            self._survive(self._recent)
        if self._retries is not None:
            self._retries.close(timeout_s / 2)
            self._finish_retries()
        # Else what is given back would come again to the subscription that is about to begin.
        while self._is_subscribing and self._is_open() and time.monotonic() < deadline:
            self._link.step(max(0.0, deadline - time.monotonic()))
        self._give_back_all()
        self._link.close(max(0.5, deadline - time.monotonic()))
        self._ready.clear()
        self._unsettled.clear()

    # ── starting ─────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        topology, spec = self._topology, self._spec
        rpc = Rpc(self._link)
        self._reason: Exception | None = None
        self._channel = rpc.channel
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_cancel_callback(self._on_cancel)
        is_ours = topology.adopted_queue is None and not spec.ephemeral
        self._queue = (
            declare_ephemeral(rpc, topology) if spec.ephemeral else topology.queue(spec.group)
        )
        self._suspects_queue = self._queue if spec.ephemeral else topology.suspects(spec.group)
        self._suspects = Suspects(
            self._link,
            self._channel,
            self._suspects_queue,
            is_ours=is_ours,
            receive=self._received,
            store=self._set_aside,
            on_end=self._subscribe,
        )
        self._leader = LeaderCheck(self._link)
        rpc("basic_qos", prefetch_count=self._window)
        self._suspects.active = self._suspects.look()
        self._arguments: dict[str, Any] = {}
        if is_ours:  # the broker refuses it on a queue that has no such limit
            self._arguments["x-consumer-timeout"] = round(self._timeout_s * 1000)
        if not self._suspects.active:
            rpc.consume(
                self._queue,
                self._on_message,
                consumer_tag=self._next_tag(),
                arguments=self._arguments,
            )

    def _next_tag(self) -> str:
        """A tag can only be used again when the broker has confirmed the end of the last one."""
        self._subscriptions += 1
        self._tag = f"{self._spec.member[:240]}#{self._subscriptions}"
        return self._tag

    def _subscribe(self) -> None:
        if not self._closed and self._cancelled_at is None:
            self._is_subscribing = True
            self._subscribed_after = self._last_tag
            self._channel.basic_consume(
                self._queue,
                self._on_message,
                consumer_tag=self._next_tag(),
                arguments=self._arguments,
                callback=self._on_subscribed,
            )

    def _on_subscribed(self, _: Any) -> None:
        self._is_subscribing = False

    def _fit(self, wanted: int) -> None:
        """Have the broker push about as many as core has room for, which goes by their size.

        A subscription keeps its number, so another takes its place. The order would be lost if both
        were there at once, and also if anything was on its way when the first one ends: the broker
        takes that back. So it ends only while all that it allows is here.
        """
        if self._is_window_fixed or not wanted or 0.8 * self._window <= wanted <= 2 * self._window:
            return
        if self._suspects.active or self._is_subscribing or self._cancelled_at is not None:
            return
        held = [*self._unsettled, *self._aside, *(one.token.tag for one in self._ready)]
        if sum(tag > self._subscribed_after for tag in held) < self._window:
            return
        # What is here counts no more for the new one; by half it can be filled again soon.
        self._window = max(wanted - len(held), -(-wanted // 2))
        unsubscribe(self._channel, self._tag)
        self._channel.basic_qos(prefetch_count=self._window)
        self._subscribe()

    def _check_leader(self) -> None:
        """Raise if nothing can come because this node is cut off from the others."""
        if not self._link.has_other_nodes or self._cancelled_at is not None:
            return
        if self._suspects.active or self._is_subscribing:
            return
        is_ours = not self._is_adopted and not self._spec.ephemeral
        is_idle = not (self._unsettled or self._ready or self._aside)
        empty = undeliverable(self._queue) if is_ours and is_idle else None
        self._leader.look(self._queue, (self._tag, self._last_tag), empty=empty)

    def _is_open(self) -> bool:
        return self._link.error is None and bool(self._channel.is_open)

    def _give_back_all(self) -> None:
        """Once: while subscribed, what goes back comes again at once, and each return counts."""
        if not self._is_open():
            return
        with self._link.gathered():
            if self._cancelled_at is None and not self._suspects.active:
                unsubscribe(self._channel, self._tag)
            self._survive(map(_fingerprint, (*self._unsettled.values(), *self._ready)))
            # What came while the subscription ended is covered too: 0 is all that is unsettled.
            self._channel.basic_nack(0, multiple=True, requeue=True)

    # ── callbacks of the loop: they must not raise ───────────────────────────────────────────

    def _on_message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        one = self._received(method, properties, body)
        if one.lost and not self._spec.ephemeral:
            self._isolate()
            self._set_aside(one)
        else:
            self._ready.append(one)

    def _received(self, method: Any, properties: Any, body: bytes) -> Received:
        now = time.monotonic()
        self._last_tag = method.delivery_tag
        one = incoming(
            method,
            properties,
            body,
            flag_is_loss=self._is_adopted,
            key_from_routing=self._key_from_routing,
            locked_until=now + self._lock_s,
            return_at=now + self._wait_s,
        )
        if one.lost > one.token.lost and self._survivors:
            mark = _fingerprint(one)
            if mark in self._survivors:
                self._survivors.discard(mark)
                return one._replace(lost=one.token.lost)
        return one

    def _on_cancel(self, _: Any) -> None:
        """See ``_end_if_cancelled``."""
        if self._cancelled_at is None:
            self._cancelled_at = time.monotonic()
        for tag in self._taken_back():
            self._unsettled.pop(tag, None)

    def _on_close(self, _: Any, reason: Exception) -> None:
        self._reason = reason

    # ── settling ─────────────────────────────────────────────────────────────────────────────

    def _take(self, max_messages: int) -> Sequence[Received]:
        """What core may have now."""
        ready, held = self._ready, self._unsettled
        if not self._suspects.active and self._suspects.look():
            self._isolate()
        if self._suspects.active:
            one = None if (held and self._isolates) or self._aside else self._suspects.fetch()
            if one is None:
                return ()
            self._tags_are_in_order = False
            held[one.token.tag] = one
            return (one,)
        if not held:
            self._tags_are_in_order = True
        if max_messages >= len(ready):
            taken = list(ready)
            ready.clear()
        else:
            taken = [ready.popleft() for _ in range(max_messages)]
        for one in taken:
            held[one.token.tag] = one
        return taken

    def _settle(self, request: SettleRequest) -> Exception | None:
        token: Token = request.token
        if token.tag not in self._unsettled:
            # The broker would close the AMQP channel over it, and all other work with it.
            if request.through:
                self._ack_each(tag for tag in list(self._unsettled) if tag < token.tag)
            gone: Exception = exceptions.ChannelWrongStateError("not held any more")
            return gone
        if not self._is_open():
            broken: Exception | None = self._link.error or self._reason
            return broken
        settlement = request.settlement
        if settlement is Settlement.ACK and request.through:
            self._ack_through(token.tag)
        elif request.refused and self._is_adopted:
            # The owner's dead-letter exchange gets it; without one the broker drops it.
            self._end(token.tag, self._refuse)
        elif settlement is Settlement.ACK or settlement is Settlement.DISCARD:
            self._end(token.tag, self._channel.basic_ack)
        elif settlement is Settlement.RELEASE:
            self._release(token.tag)
        else:
            self._store_again(token, request)
        return None

    def _end(self, tag: int, answer: Callable[[int], None]) -> None:
        self._recent.append(_fingerprint(self._unsettled.pop(tag)))
        answer(tag)

    def _release(self, tag: int) -> None:
        one = self._unsettled.pop(tag)
        if one.lost:
            self._set_aside(one)
        else:
            self._give_back(one)

    def _give_back(self, one: Received) -> None:
        self._survive([_fingerprint(one)])
        self._channel.basic_nack(one.token.tag, requeue=True)

    def _refuse(self, tag: int) -> None:
        self._channel.basic_nack(tag, requeue=False)

    def _ack_through(self, last: int) -> None:
        tags = []
        for tag in self._unsettled:
            tags.append(tag)
            if tag == last:
                break
        if self._tags_are_in_order and not self._retrying and not self._aside:
            self._channel.basic_ack(last, multiple=True)
            for tag in tags:
                self._recent.append(_fingerprint(self._unsettled.pop(tag)))
            return
        self._ack_each(tags)  # one for all would settle those whose copies are not confirmed yet

    def _ack_each(self, tags: Iterable[int]) -> None:
        for tag in tags:
            if tag not in self._retrying:
                self._end(tag, self._channel.basic_ack)

    # ── what is held for too long ────────────────────────────────────────────────────────────

    def _return_what_is_over(self) -> None:
        """Give back, before the broker does, what was held for too long, and what waits here."""
        if not self._is_open():
            return
        now = time.monotonic()
        while self._ready and (self._ready[0].return_at or now) <= now:
            self._give_back(self._ready.popleft())
        if now < self._over_at:
            return
        over = [
            tag
            for tag, one in self._unsettled.items()
            if _until(one) <= now and tag not in self._retrying
        ]
        for tag in over:
            del self._unsettled[tag]
            self._channel.basic_reject(tag, requeue=True)  # it was worked on: that counts
        if over:
            self._tell_of_held(len(over))
        held = (*self._unsettled.values(), *self._ready)
        self._over_at = min([now + self._lock_s, *(u for u in map(_until, held) if u > now)])

    def _end_if_cancelled(self) -> None:
        """Raise once the broker has ended the subscription and what is in hand is settled.

        It does so when the queue is gone; from 4.3 on also when it has taken something back. What
        else is in hand can be settled then, but a new subscription beside it would go short: the
        ended one is given messages for the room that they leave, and they do not come (4.3.6).
        """
        if self._cancelled_at is None:
            return
        if not self._is_cancel_told:
            self._is_cancel_told = True
            if waiting(self._link, self._queue) is None:
                raise exceptions.ConsumerCancelled(f"queue {self._queue!r} was deleted")
            self._tell_of_held(1)
        if not self._unsettled or time.monotonic() - self._cancelled_at > _SETTLE_S:
            raise exceptions.ConsumerCancelled(
                f"the broker ended the consumer of queue {self._queue!r}, as a message was held "
                "longer than its consumer_timeout"
            )

    def _taken_back(self) -> set[int]:
        """Tags of what the broker has taken back: the oldest, and what is as old or over."""
        held = (*self._unsettled.values(), *self._ready)
        if not held:
            return set()
        limit = max(min(map(_until, held)) + _TOGETHER_S, time.monotonic())
        return {one.token.tag for one in held if _until(one) <= limit}

    def _tell_of_held(self, count: int) -> None:
        logger.warning(
            "%s: %d not settled within %g s or queue %r's own consumer_timeout, which come again: "
            "settle sooner, or raise consumer_timeout_s",
            self._name,
            count,
            self._timeout_s,
            self._queue,
        )

    def _survive(self, marks: Iterable[tuple[str | None, int]]) -> None:
        """Note what goes back though nothing was lost: it is no suspect if it comes here again."""
        if len(self._survivors) > 10 * self._spec.prefetch:
            self._survivors.clear()  # others have taken them
        self._survivors.update(marks)

    # ── suspects ─────────────────────────────────────────────────────────────────────────────

    def _isolate(self) -> None:
        """Stop being given more; the suspects come first."""
        if not self._suspects.active:
            self._suspects.active = True
            unsubscribe(self._channel, self._tag)

    def _set_aside(self, one: Received) -> None:
        """Store it among the suspects; until that is confirmed it stays unacknowledged."""
        tag = one.token.tag
        self._aside[tag] = one
        self._storing().store_suspect(one, self._reporter(tag))

    def _keep_suspects(self) -> None:
        """At the end: given back as any other, one in hand would be lost by the broker's count."""
        left = self._suspects.left()
        for one in (*self._unsettled.values(), *((left,) if left is not None else ())):
            if one.lost and one.token.tag not in self._retrying:
                self._unsettled.pop(one.token.tag, None)
                self._set_aside(one)

    # ── retries through the broker ───────────────────────────────────────────────────────────

    def _store_again(self, token: Token, request: SettleRequest) -> None:
        message = request.message
        assert message is not None, "a RETRY carries its message"
        self._retrying[token.tag] = request
        failed = request.attempt or token.before + 1
        self._storing().store(token, message, failed, request.delay_s, self._reporter(token.tag))

    def _reporter(self, tag: int) -> Callable[[Sequence[Outcome]], None]:
        """Notes what became of a copy, on the publishing thread."""

        def stored(outcomes: Sequence[Outcome]) -> None:
            self._stored.append((tag, outcomes[0]))
            self._link.wake()

        return stored

    def _storing(self) -> Retries:
        if self._retries is None or self._retries.finished:
            self._retries = self._new_retries()
        return self._retries

    def _new_retries(self) -> Retries:
        if self._retries is not None:
            self._retries.close(0.0)
        return Retries(
            lambda: self._connect(f"retries {self._name}"),
            self._queue,
            self._suspects_queue,
            native=self._topology.native,
            name=f"gearshift-rabbitmq-retry-{self._name}",
        )

    def _finish_retries(self) -> None:
        """Settle the originals whose copies are decided."""
        while self._stored:
            tag, outcome = self._stored.popleft()
            suspect = self._aside.pop(tag, None)
            retry = self._retrying.pop(tag, None)
            one = suspect or self._unsettled.pop(tag, None)
            if one is None or not self._channel.is_open:
                continue
            if outcome.stored is Stored.YES:
                self._channel.basic_ack(tag)
            elif retry is not None:
                self._return(one, retry, outcome.error)
            else:
                logger.warning("a lost message could not be set aside: %r", outcome.error)
                self._suspects.keep(one)

    def _return(self, one: Received, retry: SettleRequest, error: Exception | None) -> None:
        """Have core keep it: the broker would deliver it again at once, and not count that."""
        error = error or TimeoutError("no answer")
        attempt = (retry.attempt or one.token.before + 1) + 1
        one = one._replace(
            attempt=attempt,
            redelivered=True,
            lost=0,
            unstored=Unstored(error, retry.delay_s),
            return_at=None,
        )
        self._unsettled[one.token.tag] = one  # behind those that core has meanwhile
        self._tags_are_in_order = False
        self._returned.append(one)

    def _take_returned(self) -> Sequence[Received]:
        returned, self._returned = self._returned, []
        return returned


def _until(one: Received) -> float:
    assert one.locked_until is not None
    return one.locked_until


def _fingerprint(one: Received) -> tuple[str | None, int]:
    """What tells a message from others, within this process."""
    return one.message.id, hash(one.message.body)
