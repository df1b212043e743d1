"""A thread that publishes what other threads hand to it, over a connection of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pika import exceptions

from gearshift.driver import OnOutcomes, Outcome, Stored
from gearshift_rabbitmq.confirms import Batch, Confirms, Target
from gearshift_rabbitmq.connection import Link

__all__ = ["Publisher", "connected"]

logger = logging.getLogger("gearshift.rabbitmq.producer")

T = TypeVar("T")

#: What is written before the loop looks for confirms again.
_TURN_MESSAGES = 500
_TURN_BYTES = 1024 * 1024
_IDLE_S = 5.0

#: Without one confirm for so long, while some are awaited, another node is tried: this one may be
#: cut off from its cluster. Quorum queues and streams elect a leader sooner. Seconds.
_UNCONFIRMED_S = 20.0
_GOODBYE_S = 1.0


class Publisher(Generic[T]):
    """Publishes batches with confirms, in order, until its connection ends; then it is finished.

    ``prepare`` is given the items of each batch before they are published, on the publishing
    thread, and may ask the broker.
    """

    def __init__(
        self,
        connect: Callable[[], Link],
        target: Target[T],
        *,
        name: str,
        prepare: Callable[[Link, Sequence[T]], None] | None = None,
    ) -> None:
        """Start the thread. ``connect`` is called on it; its error ends every batch."""
        self._connect = connect
        self._target = target
        self._prepare = prepare
        self._queue: deque[Batch[T]] = deque()
        self._changed = threading.Condition()
        self._unresolved = 0
        self._link: Link | None = None
        self._confirms: Confirms[T] | None = None
        self._ended: Exception | None = None
        self._stopping = False
        self._awake = False
        self._confirmed_at = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # ── any thread ───────────────────────────────────────────────────────────────────────────

    @property
    def ended(self) -> Exception | None:
        """Why it is finished, or None while it works."""
        return self._ended

    @property
    def heard_at(self) -> float | None:
        """When the broker last said anything; None before there is a connection."""
        link = self._link
        return None if link is None else link.heard_at

    def submit(self, items: Sequence[T], on_outcomes: OnOutcomes) -> None:
        """Queue a batch; never waits and never raises. Outcomes come on the publishing thread,
        or on the caller's if the connection has ended."""
        if not items:
            return
        batch = Batch(items, on_outcomes)
        with self._changed:
            ended = self._ended
            if ended is None:
                self._unresolved += len(items)
                self._queue.append(batch)
        if ended is not None:
            on_outcomes([Outcome(n, Stored.NO, None, ended) for n in range(len(items))])
        elif not self._awake:
            self._awake = True
            self._wake()

    def blocked(self) -> str | None:
        """Why the broker takes nothing at present, or None."""
        link = self._link
        return None if link is None else link.blocked

    def flush(self, timeout_s: float) -> bool:
        """Wait until all batches have their outcomes; False if time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: self._unresolved == 0, max(0.0, timeout_s))

    def close(self, timeout_s: float) -> None:
        """Flush, end what is left as unknown (or not stored, if never written), end the thread."""
        self.flush(timeout_s)
        self._stopping = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        link = self._link
        if link is not None:
            link.wake()

    # ── the publishing thread ────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        reason: Exception = exceptions.ConnectionClosedByClient(200, "closed before a confirm")
        try:
            self._link = self._connect()
            self._confirmed_at = time.monotonic()
            while not self._stopping:
                self._awake = False
                more = self._publish_queued(self._link)
                self._link.step(0.0 if more else _IDLE_S)
                self._check_confirms(self._link)
        except Exception as error:
            logger.debug("publishing ended: %r", error)
            reason = error
        finally:
            self._end(reason)

    def _check_confirms(self, link: Link) -> None:
        """Raise TimeoutError if the broker takes messages and confirms none."""
        now = time.monotonic()
        awaited = self._confirms is not None and self._confirms.awaited
        if not awaited or not link.has_other_nodes or link.blocked is not None:
            self._confirmed_at = now
        elif now - self._confirmed_at > _UNCONFIRMED_S:
            link.leave_node()
            raise TimeoutError(f"no message was confirmed for {_UNCONFIRMED_S:g} s")

    def _publish_queued(self, link: Link) -> bool:
        """One turn of publishing; whether there is more to do at once."""
        if not self._queue or link.blocked is not None:
            return False
        if link.connection.unsent_bytes() > _TURN_BYTES:
            return False  # the loop wakes as soon as the socket takes more
        if self._prepare is not None and not self._is_prepared(link, self._prepare):
            return bool(self._queue)
        if self._confirms is None:
            self._confirms = Confirms(link, self._target, self._report)
        if not self._confirms.ready(self._queue[0]):
            return False
        with link.gathered():
            self._publish_turn(self._confirms)
        return bool(self._queue)

    def _publish_turn(self, confirms: Confirms[T]) -> None:
        messages, size = _TURN_MESSAGES, _TURN_BYTES
        while self._queue and messages > 0 and size > 0:
            batch = self._queue[0]
            taken, wrote = confirms.publish(batch, messages, size)
            messages -= taken
            size -= wrote
            if batch.written < len(batch.items):
                break
            self._queue.popleft()
            if self._prepare is not None:
                break  # the next batch has to be prepared first

    def _is_prepared(self, link: Link, prepare: Callable[[Link, Sequence[T]], None]) -> bool:
        """Prepare the first batch. False if it was refused, and the one behind it is the first."""
        batch = self._queue[0]
        try:
            prepare(link, batch.items[batch.written :])
        except Exception as error:
            if link.error is not None:
                raise
            self._queue.popleft()
            self._refuse(batch, error)
            return False
        return True

    def _report(self, batch: Batch[T], outcomes: list[Outcome]) -> None:
        self._confirmed_at = time.monotonic()
        try:
            batch.on_outcomes(outcomes)
        except Exception:
            logger.exception("the receiver of outcomes failed")
        with self._changed:
            self._unresolved -= len(outcomes)
            if self._unresolved == 0:
                self._changed.notify_all()

    def _refuse(self, batch: Batch[T], error: Exception) -> None:
        """End the part of ``batch`` that was never written."""
        rest = range(batch.written, len(batch.items))
        if rest:
            self._report(batch, [Outcome(number, Stored.NO, None, error) for number in rest])

    def _end(self, reason: Exception) -> None:
        with self._changed:
            self._ended = reason
        if self._confirms is not None:
            self._confirms.fail(reason)
        while self._queue:
            self._refuse(self._queue.popleft(), reason)
        if self._link is not None:
            self._link.close(_GOODBYE_S)


def connected(connect: Callable[[], Link]) -> Callable[[], Link]:
    """Connect now and give the result later: so that a failure reaches the caller."""
    link = connect()
    return lambda: link
