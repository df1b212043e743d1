"""The queue driver: lanes that acquire, a ledger of what they hold, and retries that wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from confluent_kafka import AcknowledgeType, KafkaError, KafkaException
from confluent_kafka import Message as Record

from gearshift.driver import Incoming, SettleFailure, Settlement, Verdict
from gearshift.errors import NotSupported, StaleDelivery, UnknownChannel
from gearshift.message import Message
from gearshift_kafka.errors import LACKS_PROTOCOL, TRANSIENT, code_of
from gearshift_kafka.share.copies import Copies
from gearshift_kafka.share.delays import Past, unpack
from gearshift_kafka.share.lane import Lane, Place
from gearshift_kafka.share.mover import Mover
from gearshift_kafka.wire import decode

__all__ = ["MOST_LANES", "LaneFactory", "ShareQueue", "lane_size"]

log = logging.getLogger("gearshift.kafka")

#: Longest single poll: the client cannot be woken from one. Seconds.
_SLICE_S = 0.1

MOST_LANES = 4

#: With every lane waiting for its handlers for so long, another one is opened.
_STALLED_S = 0.5

#: How often to ask whether the topic is still there, while nothing comes: the client never says.
_CHECK_EVERY_S = 5.0

#: The broker counts every delivery, also of what nobody worked on. So many of those that ended
#: without a word are one attempt, and a message that kills its workers ends too.
_RETURNS_PER_ATTEMPT = 10

_HOW = {
    Verdict.ACK: AcknowledgeType.ACCEPT,
    Verdict.DISCARD: AcknowledgeType.REJECT,
    Verdict.RELEASE: AcknowledgeType.RELEASE,
}

LaneFactory: TypeAlias = Callable[[], Lane]


@dataclass(slots=True)
class _Copy:
    """A message that is being stored again, and what became of that."""

    place: Place
    error: KafkaError | None = None


def lane_size(prefetch: int) -> int:
    """How many messages a lane may hold, so that all lanes together hold ``prefetch``."""
    return max(1, prefetch // MOST_LANES)


class ShareQueue:
    """One member of a share group; see QueueDriver.

    ``deliveries`` is how often the broker delivers a message before it drops it in silence. Before
    that happens a message is stored again, where it starts anew, with its attempts. So a message
    only ends by being acked or rejected.
    """

    cumulative_ack = False

    def __init__(
        self,
        topic: str,
        *,
        new_lane: LaneFactory,
        new_retry_lane: LaneFactory,
        copies: Copies,
        mover: Mover,
        failures: deque[Exception],
        deliveries: int,
    ) -> None:
        self._topic = topic
        self._new_lane = new_lane
        self._new_retry_lane = new_retry_lane
        self._copies = copies
        self._mover = mover
        self._failures = failures
        self._last_delivery = deliveries - 1
        self._lanes = [new_lane()]
        self._ready: deque[Incoming] = deque()
        self._stored: deque[_Copy] = deque()
        self._busy_since: float | None = None
        self._check_at = time.monotonic() + _CHECK_EVERY_S
        self._woken = threading.Event()
        self._closed = False

    def join(self, timeout_s: float) -> None:
        """Wait until this member is given partitions, or not longer than that. Raises."""
        deadline = time.monotonic() + timeout_s
        lane = self._lanes[0]
        while not lane.membership.is_assigned and time.monotonic() < deadline and lane.is_idle:
            self._take(lane, _SLICE_S)
            self._serve()

    # ── receiving ──

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Incoming]:
        deadline = time.monotonic() + timeout_s
        while True:
            self._serve()
            left = deadline - time.monotonic()
            if max_messages and self._ready:
                break
            if left <= 0 or self._woken.is_set():
                break
            if not self._poll(max_messages, min(left, _SLICE_S)) and max_messages:
                break  # handlers are at work: what they have settled is to be told soon
        self._woken.clear()
        count = min(max_messages, len(self._ready))
        return [self._ready.popleft() for _ in range(count)]

    def _serve(self) -> None:
        """What is due between polls."""
        if self._failures:
            raise _final(self._failures.popleft())
        self._mover.step()
        self._finish_copies()
        for lane in self._lanes:
            lane.give_up_expired()
        if self._mover.has_moved and not any(lane.is_retry for lane in self._lanes):
            self._lanes.append(self._new_retry_lane())
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + _CHECK_EVERY_S
            if self._mover.is_missing(self._topic):
                raise UnknownChannel(f"topic {self._topic!r} does not exist any more")

    def _poll(self, room: int, timeout_s: float) -> bool:
        """Fill ``ready`` from idle lanes that have room; False if there is none, after a nap."""
        idle = [lane for lane in self._lanes if lane.is_idle and lane.size <= room]
        if not idle:
            self._woken.wait(self._nap_s(room, timeout_s))
            return False
        self._busy_since = None
        self._lanes.append(self._lanes.pop(0))  # each in its turn waits for the first message
        for lane in idle[:-1]:
            self._take(lane, 0.0)
        self._take(idle[-1], 0.0 if self._ready else timeout_s)
        return True

    def _nap_s(self, room: int, timeout_s: float) -> float:
        """How long to let handlers work: in proportion to how long they have worked so far."""
        now = time.monotonic()
        if not room or self._busy_since is None:
            self._busy_since = now
        busy_s = now - self._busy_since
        lanes = sum(not lane.is_retry for lane in self._lanes)
        if busy_s > _STALLED_S and lanes < MOST_LANES and room >= self._lanes[0].size:
            self._lanes.append(self._new_lane())
            self._busy_since = None
        return min(timeout_s, max(0.001, busy_s / 4)) if room else timeout_s

    def _take(self, lane: Lane, timeout_s: float) -> None:
        try:
            records = lane.poll(timeout_s)
        except KafkaException as failure:
            raise _final(failure) from failure
        for record in records:
            error = record.error()
            if error is not None:
                self._note(error)
            else:
                self._add(lane, record)
        if records:
            self._check_at = time.monotonic() + _CHECK_EVERY_S

    def _add(self, lane: Lane, record: Record) -> None:
        message, past = unpack(record) if lane.is_retry else (decode(record), Past())
        delivery = record.delivery_count() or 1
        place = lane.place(record)
        past = past._replace(returns=past.returns + delivery - 1)
        if delivery >= self._last_delivery:
            self._store_again(place, message, past)
            return
        attempt = past.attempts + 1 + past.returns // _RETURNS_PER_ATTEMPT
        redelivered, until = any(past), lane.locked_until
        self._ready.append(Incoming(message, place, None, attempt, redelivered, until))

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() not in TRANSIENT:
            raise _final(KafkaException(error))
        log.info("topic %r: %s", self._topic, error.str())

    # ── settling ──

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleFailure]:
        failures: list[SettleFailure] = []
        for settlement in settlements:
            place: Place = settlement.token
            if not place.lane.holds(place):
                gone = StaleDelivery("its lock was over before it was settled")
                failures.append(SettleFailure(place, gone))
            elif settlement.verdict is Verdict.RETRY:
                message, attempt = settlement.message, settlement.attempt
                assert message is not None, "a RETRY carries its message"
                assert attempt is not None, "and the attempt that failed"
                self._store_again(place, message, Past(attempt), delay_s=settlement.delay_s)
            else:
                place.lane.acknowledge(place, _HOW[settlement.verdict])
        for lane in self._lanes:
            failures += lane.commit()
        return failures

    def wake(self) -> None:
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        self._copies.close(timeout_s / 2)
        self._finish_copies()
        # A client that cannot reach the broker takes its time to let go; nobody waits for that.
        closers = [
            threading.Thread(target=close, name="gearshift-kafka-close", daemon=True)
            for close in (*(lane.close for lane in self._lanes), self._mover.close)
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(max(0.5, deadline - time.monotonic()))

    # ── storing again ──

    def _store_again(
        self, place: Place, message: Message, past: Past, *, delay_s: float = 0.0
    ) -> None:
        def stored(error: KafkaError | None) -> None:
            self._stored.append(_Copy(place, error))

        self._copies.store(message, past, delay_s=delay_s, on_stored=stored)

    def _finish_copies(self) -> None:
        """Settle the originals whose copies are decided."""
        lanes = set()
        while self._stored:
            copy = self._stored.popleft()
            if copy.error is not None:
                log.warning("a retry could not be delayed and comes at once: %s", copy.error.str())
            if copy.place.lane.holds(copy.place):
                how = AcknowledgeType.RELEASE if copy.error else AcknowledgeType.ACCEPT
                copy.place.lane.acknowledge(copy.place, how)
                lanes.add(copy.place.lane)
        for lane in lanes:
            for failure in lane.commit():
                log.warning("a retry's original comes again as well: %s", failure.error)


def _final(failure: Exception) -> Exception:
    """What to raise for what no waiting mends."""
    if code_of(failure) in LACKS_PROTOCOL:
        return NotSupported(
            "the broker refuses share groups, which queues on Kafka need",
            hint='use Kafka 4.2 or newer with share.version 1, or semantics = "stream"',
        )
    return failure
