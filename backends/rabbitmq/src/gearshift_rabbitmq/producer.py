"""The producer driver: publishes with confirms, over a connection of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pika import exceptions

from gearshift.driver import OnOutcomes, Outcome, ProducerDriver, Stored
from gearshift.driver.handover import Handover
from gearshift.driver.helpers import OpenCount
from gearshift_rabbitmq.confirms import Batch, Confirms, ConfirmWatch, Target
from gearshift_rabbitmq.connection import Connection

__all__ = ["Producer"]

logger = logging.getLogger("gearshift.rabbitmq.producer")

#: What is written before the loop looks for confirms again.
_TURN_MESSAGES = 500
_TURN_BYTES = 1024 * 1024
_IDLE_S = 5.0

#: Without one confirm for so long, while some are awaited, another node is tried: this one may be
#: cut off from its cluster. Quorum queues and streams elect a leader sooner. Seconds.
_UNCONFIRMED_S = 20.0
_CLOSE_S = 1.0


class Producer(ProducerDriver):
    """Publishes messages of one channel, or the copies of a consumer's retries.

    YES means: persistent, routed to a queue and confirmed by the broker. A bad publish (a missing
    exchange, say) makes the broker close the AMQP channel; what was in flight with it is UNKNOWN,
    or NO if it was alone, and later batches go over a new AMQP channel of the same connection. Once
    the connection itself is lost, every submit ends as NO.

    ``_lock`` guards what ``submit`` adds to ``_queue`` before ``_ended``. All else, and pika's
    connection with its loop, belongs to the thread that drives (see ``gearshift.driver.handover``):
    this driver's own, or a sender that was alone when it came. Others wake pika's loop by
    ``Connection.wake``. Only the own thread opens AMQP channels, because that waits for the
    broker's answers, and ends the driver: a sender that finds the connection broken leaves that to
    it.
    """

    def __init__(self, connect: Callable[[], Connection], target: Target, *, name: str) -> None:
        """Start the thread. ``connect`` is called on it; its error ends every batch."""
        self._connect = connect
        self._target = target
        self._queue: deque[Batch] = deque()
        self._open = OpenCount()
        self._handover = Handover(lambda: bool(self._open) or self._stopping)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._confirms: Confirms | None = None
        self._watch: ConfirmWatch | None = None
        self._ended: Exception | None = None
        self._broken: Exception | None = None  # found by a sender; the own thread ends with it
        self._stopping = False
        self._awake = False  # the queue will be looked at without waking the loop
        self._was_served = False  # a sender waited while another thread drove
        self._was_crowded = False  # something was submitted while other outcomes were awaited
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> Exception | None:
        return self._ended

    @property
    def heard_at(self) -> float | None:
        connection = self._connection
        return None if connection is None else connection.heard_at

    def submit(self, messages: Sequence[Any], on_outcomes: OnOutcomes) -> None:
        """See ProducerDriver. Takes whatever the target encodes."""
        self.submit_served(messages, on_outcomes)
        self._wake()

    def submit_served(self, messages: Sequence[Any], on_outcomes: OnOutcomes) -> None:
        if not messages:
            return
        with self._lock:
            ended = self._ended
            if ended is None:
                self._was_crowded = self._was_crowded or bool(self._open)
                self._open.add(len(messages))
                self._queue.append(Batch(messages, on_outcomes))
        if ended is not None:
            on_outcomes([Outcome(n, Stored.NO, None, ended) for n in range(len(messages))])

    def serve(self, done: Callable[[], bool], timeout_s: float) -> None:
        drives = False
        try:
            drives = self._handover.take()
            if drives:
                self._drive_until(done, time.monotonic() + timeout_s)
        except Exception as error:
            self._broken = error
        except BaseException:
            # It may have come in the midst of a frame: what pika has written is not known.
            self._broken = exceptions.ConnectionClosedByClient(0, "a sender was interrupted")
            raise
        finally:
            if drives:
                self._awake = False
                self._handover.give_back(broken=self._broken is not None)
            else:
                self._was_served = True
                self._wake()

    def blocked(self) -> str | None:
        connection = self._connection
        return None if connection is None else connection.blocked

    def close(self, timeout_s: float) -> None:
        """See ProducerDriver. Takes up to a second longer, to close the connection in order."""
        self._open.wait(max(0.0, timeout_s))
        self._stopping = True
        self._awake = False
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        """Have the queue looked at, by whoever drives."""
        if self._awake:
            return
        self._awake = True
        self._handover.recall()
        connection = self._connection
        if connection is not None:
            connection.wake()

    def _run(self) -> None:
        reason: Exception = exceptions.ConnectionClosedByClient(200, "closed before a confirm")
        try:
            connection = self._connection = self._connect()
            self._confirms = Confirms(connection, self._target, self._report)
            self._watch = ConfirmWatch(connection, _UNCONFIRMED_S)
            while not self._stopping:
                self._drive(connection, self._confirms, self._watch)
        except Exception as error:
            logger.debug("publishing ended: %r", error)
            reason = error
        finally:
            self._end(reason)

    def _drive(self, connection: Connection, confirms: Confirms, watch: ConfirmWatch) -> None:
        """One turn of the own thread; then a rest, if senders can do without it."""
        self._awake = False
        more = self._publish_queued(connection, confirms, opens=True)
        connection.step(0.0 if more else _IDLE_S)
        watch.check(confirms.awaited)
        if self._was_served and not self._open:
            crowded, self._was_served, self._was_crowded = self._was_crowded, False, False
            if not crowded:
                self._awake = False
                self._handover.rest()
                if self._broken is not None:
                    raise self._broken

    def _drive_until(self, done: Callable[[], bool], deadline: float) -> None:
        """A sender's turns, until ``done``, or until it needs the own thread."""
        connection, confirms, watch = self._connection, self._confirms, self._watch
        assert connection is not None
        assert confirms is not None
        assert watch is not None
        while not (done() or self._stopping):
            self._awake = False
            self._publish_queued(connection, confirms, opens=False)
            left_s = deadline - time.monotonic()
            if done() or self._queue or left_s <= 0:  # done: it was refused, nothing will come
                return
            connection.step(left_s)
            watch.check(confirms.awaited)

    def _publish_queued(self, connection: Connection, confirms: Confirms, *, opens: bool) -> bool:
        """One turn of publishing, which ``opens`` AMQP channels or leaves what needs a new one.

        Returns whether there is more to do at once.
        """
        if not self._queue or connection.blocked is not None:
            return False
        if connection.pika.unsent_bytes() > _TURN_BYTES:
            return False  # the loop wakes as soon as the socket takes more
        first = self._queue[0]
        if not (confirms.ready(first) if opens else first.ahead is None):
            return False
        connection.pika.cork()
        try:
            self._publish_turn(confirms)
        finally:
            connection.pika.uncork()
        return bool(self._queue)

    def _publish_turn(self, confirms: Confirms) -> None:
        messages, size = _TURN_MESSAGES, _TURN_BYTES
        while self._queue and messages > 0 and size > 0:
            batch = self._queue[0]
            taken, wrote = confirms.publish(batch, messages, size)
            messages -= taken
            size -= wrote
            if batch.written < len(batch.items):
                break
            self._queue.popleft()

    def _report(self, batch: Batch, outcomes: list[Outcome]) -> None:
        if self._watch is not None:
            self._watch.confirmed()
        try:
            batch.on_outcomes(outcomes)
        except Exception:
            logger.exception("the receiver of outcomes failed")
        self._open.remove(len(outcomes))

    def _refuse(self, batch: Batch, error: Exception) -> None:
        """End the part of ``batch`` that was never written."""
        rest = range(batch.written, len(batch.items))
        if rest:
            self._report(batch, [Outcome(number, Stored.NO, None, error) for number in rest])

    def _end(self, reason: Exception) -> None:
        with self._lock:
            self._ended = reason
        if self._confirms is not None:
            self._confirms.fail(reason)
        while self._queue:
            self._refuse(self._queue.popleft(), reason)
        if self._connection is not None:
            self._connection.close(_CLOSE_S)
