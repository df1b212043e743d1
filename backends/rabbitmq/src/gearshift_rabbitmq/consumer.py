"""The queue driver: one consumer of one queue, driven by the thread that calls ``receive``."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pika import exceptions

from gearshift.driver import (
    ConsumerSpec,
    Incoming,
    Outcome,
    SettleFailure,
    Settlement,
    Stored,
    Verdict,
)
from gearshift_rabbitmq.connection import Link, Rpc
from gearshift_rabbitmq.delay import Retries
from gearshift_rabbitmq.topology import Topology, declare_ephemeral
from gearshift_rabbitmq.wire import Token, incoming

__all__ = ["Consumer"]

logger = logging.getLogger("gearshift.rabbitmq.consumer")


class Consumer:
    """A QueueDriver. Heartbeats are answered inside ``receive``.

    Every RETRY is stored again with its count in ``gearshift-attempt``: the broker's own count
    also rises, before 4.3, with each return of a message that nobody has worked on. What comes
    back from a crash of an adopted queue, which may count nothing, has attempt None.
    """

    cumulative_ack = True

    def __init__(self, connect: Callable[[str], Link], spec: ConsumerSpec) -> None:
        """Connect and consume. Raises pika's error; 404 if the group's queue is not there."""
        topology = Topology.of(spec.channel)
        self._connect = connect
        self._name = f"{spec.channel.name}/{spec.group}"
        self._ready: deque[Incoming] = deque()
        self._unsettled: dict[int, None] = {}
        self._retrying: set[int] = set()
        self._stored: deque[tuple[int, Outcome]] = deque()
        self._retries: Retries | None = None
        self._cancelled = False
        self._closed = False
        self._woken = False
        self._counted = topology.adopted_queue is None and not spec.ephemeral
        self._link = connect(f"consumer {self._name}")
        try:
            self._queue = self._start(topology, spec)
        except BaseException:
            self._link.close(1.0)
            raise

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Incoming]:
        """See QueueDriver. Raises ConsumerCancelled when the queue was deleted or failed over."""
        deadline = time.monotonic() + timeout_s
        step = self._link.step
        step(0.0)
        while True:
            self._finish_retries()
            if self._cancelled:
                raise exceptions.ConsumerCancelled(
                    f"the broker ended the consumer of queue {self._queue!r}: deleted or moved"
                )
            if not self._channel.is_open:
                raise self._reason or exceptions.ChannelWrongStateError(
                    "the AMQP channel is closed"
                )
            remaining = deadline - time.monotonic()
            if (max_messages and self._ready) or self._woken or remaining <= 0:
                self._woken = False
                return self._take(max_messages)
            step(remaining)

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleFailure]:
        """See QueueDriver. A retry stays unacknowledged until its copy is confirmed."""
        failures: list[SettleFailure] = []
        with self._link.gathered():
            for settlement in settlements:
                failure = self._settle(settlement)
                if failure is not None:
                    failures.append(SettleFailure(settlement.token, failure))
        return failures

    def wake(self) -> None:
        """See QueueDriver. Any thread, also after close."""
        self._woken = True
        self._link.wake()

    def close(self, timeout_s: float) -> None:
        """See QueueDriver. Waits for retries being stored; the broker takes back the rest."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        if self._retries is not None:
            self._retries.close(timeout_s / 2)
            self._finish_retries()
        self._link.close(max(0.5, deadline - time.monotonic()))
        self._ready.clear()
        self._unsettled.clear()

    # ── starting ─────────────────────────────────────────────────────────────────────────────

    def _start(self, topology: Topology, spec: ConsumerSpec) -> str:
        rpc = Rpc(self._link)
        self._reason: Exception | None = None
        self._channel = rpc.channel
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_cancel_callback(self._on_cancel)
        queue = declare_ephemeral(rpc, topology) if spec.ephemeral else topology.queue(spec.group)
        rpc("basic_qos", prefetch_count=spec.prefetch)
        rpc.consume(queue, self._on_message, consumer_tag=spec.member[:255])
        return queue

    # ── callbacks of the loop: they must not raise ───────────────────────────────────────────

    def _on_message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self._unsettled[method.delivery_tag] = None
        self._ready.append(incoming(method, properties, body, self._counted))

    def _on_cancel(self, _: Any) -> None:
        self._cancelled = True

    def _on_close(self, _: Any, reason: Exception) -> None:
        self._reason = reason

    # ── settling ─────────────────────────────────────────────────────────────────────────────

    def _take(self, max_messages: int) -> list[Incoming]:
        ready = self._ready
        if max_messages >= len(ready):
            taken = list(ready)
            ready.clear()
            return taken
        return [ready.popleft() for _ in range(max_messages)]

    def _settle(self, settlement: Settlement) -> Exception | None:
        token: Token = settlement.token
        if token.tag not in self._unsettled:
            # The broker would close the AMQP channel over it, and all other work with it.
            gone: Exception = exceptions.ChannelWrongStateError("not open on this connection")
            return gone
        if self._link.error is not None or not self._channel.is_open:
            broken: Exception | None = self._link.error or self._reason
            return broken
        verdict = settlement.verdict
        if verdict is Verdict.ACK and settlement.through:
            self._ack_through(token.tag)
        elif verdict is Verdict.ACK or verdict is Verdict.DISCARD:
            self._end(token.tag, self._channel.basic_ack)
        elif verdict is Verdict.RELEASE:
            self._end(token.tag, self._release)
        else:
            self._store_again(token, settlement)
        return None

    def _end(self, tag: int, answer: Callable[[int], None]) -> None:
        del self._unsettled[tag]
        answer(tag)

    def _release(self, tag: int) -> None:
        self._channel.basic_nack(tag, requeue=True)

    def _ack_through(self, last: int) -> None:
        tags = []
        for tag in self._unsettled:
            if tag > last:
                break
            tags.append(tag)
        if not self._retrying:
            self._channel.basic_ack(last, multiple=True)
            for tag in tags:
                del self._unsettled[tag]
            return
        for tag in tags:  # one for all would settle those whose copies are not confirmed yet
            if tag not in self._retrying:
                self._end(tag, self._channel.basic_ack)

    # ── retries through the broker ───────────────────────────────────────────────────────────

    def _store_again(self, token: Token, settlement: Settlement) -> None:
        message = settlement.message
        assert message is not None, "a RETRY carries its message"
        self._retrying.add(token.tag)
        failed = settlement.attempt or token.before + 1

        def stored(outcomes: Sequence[Outcome]) -> None:
            self._stored.append((token.tag, outcomes[0]))
            self._link.wake()

        if self._retries is None or self._retries.finished:
            self._retries = self._new_retries()
        self._retries.store(token, message, failed, settlement.delay_s, stored)

    def _new_retries(self) -> Retries:
        if self._retries is not None:
            self._retries.close(0.0)
        return Retries(
            lambda: self._connect(f"retries {self._name}"),
            self._queue,
            name=f"gearshift-rabbitmq-retry-{self._name}",
        )

    def _finish_retries(self) -> None:
        """Settle the originals whose copies are decided."""
        while self._stored:
            tag, outcome = self._stored.popleft()
            self._retrying.discard(tag)
            if tag not in self._unsettled or not self._channel.is_open:
                continue
            if outcome.stored is Stored.YES:
                self._end(tag, self._channel.basic_ack)
            else:
                logger.warning("a retry could not be stored and comes at once: %r", outcome.error)
                self._end(tag, self._channel.basic_reject)
