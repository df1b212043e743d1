"""The queue driver: lanes that acquire, a ledger of what they hold, and retries that wait."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from confluent_kafka import AcknowledgeType, KafkaError, KafkaException
from confluent_kafka import Message as Record

from gearshift.driver import (
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
    Unstored,
)
from gearshift.errors import NotSupported, StaleDelivery, UnknownChannel
from gearshift.message import Message
from gearshift_kafka.errors import LACKS_PROTOCOL, TRANSIENT, code_of
from gearshift_kafka.queue.copies import Copies, OnStored
from gearshift_kafka.queue.delays import Past, unpack
from gearshift_kafka.queue.lane import Lane, Place, Source
from gearshift_kafka.queue.limits import no_share_groups
from gearshift_kafka.queue.mover import Mover
from gearshift_kafka.queue.suspects import Suspects
from gearshift_kafka.wire import decode

__all__ = ["MOST_LANES", "LaneFactory", "QueueConsumer", "lane_size"]

log = logging.getLogger("gearshift.kafka")

#: Longest single poll: the client cannot be woken from one. Seconds.
_SLICE_S = 0.1

MOST_LANES = 4

#: With every lane waiting for its handlers for so long, another one is opened.
_STALLED_S = 0.5

#: How often to ask whether the topic is still there, while nothing comes: the client never says.
_CHECK_EVERY_S = 5.0

#: How often to ask whether others have left retries or suspects, until there have been some.
_LOOK_EVERY_S = 10.0

_HOW = {Settlement.ACK: AcknowledgeType.ACCEPT, Settlement.DISCARD: AcknowledgeType.REJECT}

LaneFactory: TypeAlias = Callable[[], Lane]


@dataclass(slots=True)
class _Copy:
    """A message that is being stored again, after ``delay_s``, and what became of that."""

    place: Place
    message: Message
    past: Past
    delay_s: float = 0.0
    error: KafkaError | None = None

    def returned(self, error: KafkaError) -> Received:
        """What core is given if it was not stored."""
        return _incoming(self.message, self.place, self.past)._replace(
            redelivered=True,
            lost=0,  # it cannot come alone
            return_at=None,
            unstored=Unstored(KafkaException(error), self.delay_s),
        )


def lane_size(prefetch: int) -> int:
    """How many messages a lane may hold, so that all lanes together hold ``prefetch``."""
    return max(1, prefetch // MOST_LANES)


class QueueConsumer(QueueDriver):
    """One member of a share group; see QueueDriver.

    ``deliveries`` is how often the broker delivers a message before it drops it in silence. Before
    that happens a message is stored again, where it starts anew, with its attempts: what goes back
    without having been worked on and what is retried among the retries, what was lost with a
    consumer among the suspects. So a message only ends by being acked or rejected.
    """

    _isolates = True
    _wants_suspects = False

    def __init__(
        self,
        topic: str,
        *,
        new_lane: LaneFactory,
        new_retry_lane: LaneFactory,
        suspects: Suspects,
        copies: Copies,
        mover: Mover,
        failures: deque[Exception],
        deliveries: int,
    ) -> None:
        self._topic = topic
        self._new_lane = new_lane
        self._new_retry_lane = new_retry_lane
        self._suspects = suspects
        self._copies = copies
        self._mover = mover
        self._failures = failures
        self._last_delivery = deliveries - 1
        self._lanes = [new_lane()]
        self._ready: deque[Received] = deque()
        self._stored: deque[_Copy] = deque()
        self._returned: list[Received] = []  # whose copies could not be stored
        self._busy_since: float | None = None
        self._check_at = time.monotonic() + _CHECK_EVERY_S
        self._look_at = 0.0
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

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        deadline = time.monotonic() + timeout_s
        while True:
            self._serve()
            if self._returned:
                returned, self._returned = self._returned, []
                return returned
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
        self._mover.heard.watch(self._topic)
        self._finish_copies()
        for lane in self._all_lanes():
            lane.give_up_expired()
        self._return_what_waits_too_long()
        if self._mover.has_moved and not any(lane.source is Source.RETRIES for lane in self._lanes):
            self._lanes.append(self._new_retry_lane())
        if self._mover.has_suspects and not self._suspects.lanes:
            self._take(self._suspects.open(), 0.0)
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._mover.look()
        if now >= self._check_at:
            self._check_at = now + _CHECK_EVERY_S
            if self._mover.is_missing(self._topic):
                raise UnknownChannel(f"topic {self._topic!r} does not exist any more")

    def _all_lanes(self) -> list[Lane]:
        return [*self._lanes, *self._suspects.lanes]

    def _poll(self, room: int, timeout_s: float) -> bool:
        """Fill ``ready`` from idle lanes that have room; False if there is none, after a nap."""
        lanes = self._lanes
        if self._isolates or not room:
            is_free = room and not self._ready and all(lane.is_idle for lane in self._all_lanes())
            if self._suspects.are_expected and is_free:
                self._poll_suspect(timeout_s)
                return True
            is_paused = self._suspects.are_expected or not room
            asked = self._all_lanes() if is_paused else self._suspects.lanes
            self._look_after(asked, wanted=bool(is_free))
            if self._suspects.are_expected:
                if not is_free:
                    self._woken.wait(self._nap_s(room, timeout_s))
                return bool(is_free)
        elif self._suspects.are_expected:
            self._suspects.make_room(self._lanes[0].size, MOST_LANES)
            lanes = self._all_lanes()
        idle = [lane for lane in lanes if lane.is_idle]
        if not room or len(idle) < len(lanes):  # large messages never leave room for many
            idle = [lane for lane in idle if lane.size <= room]
        if not idle:
            self._woken.wait(self._nap_s(room, timeout_s))
            return False
        self._busy_since = None
        self._lanes.append(self._lanes.pop(0))  # each in its turn waits for the first message
        for lane in idle[:-1]:
            self._take(lane, 0.0, wanted=True)
        self._take(idle[-1], 0.0 if self._ready else timeout_s, wanted=True)
        return True

    def _poll_suspect(self, timeout_s: float) -> None:
        """Fill ``ready`` with one, while nothing else is in hand."""
        self._busy_since = None
        lane = self._suspects.lanes[0]
        self._take(lane, timeout_s, wanted=True)
        if lane.is_idle:
            self._suspects.came_none()
        else:
            self._suspects.expect()  # there may be more

    def _look_after(self, lanes: Sequence[Lane], *, wanted: bool) -> None:
        """See what lanes have got for which they have asked ever since a poll in vain, so that its
        lock is not over before anybody knows of it. A suspect that is not ``wanted`` is set aside
        again; others wait in ``ready``."""
        for lane in lanes:
            if lane.is_idle and lane.has_asked:
                self._take(lane, 0.0, wanted=wanted and not self._ready)
                if lane.source is Source.SUSPECTS and not lane.is_idle:
                    self._suspects.expect()

    def _nap_s(self, room: int, timeout_s: float) -> float:
        """How long to let handlers work: in proportion to how long they have worked so far."""
        now = time.monotonic()
        if not room or self._busy_since is None:
            self._busy_since = now
        busy_s = now - self._busy_since
        lanes = sum(lane.source is Source.CHANNEL for lane in self._lanes)
        may_open = lanes < MOST_LANES and not self._suspects.are_expected
        if busy_s > _STALLED_S and may_open and room >= self._lanes[0].size:
            self._lanes.append(self._new_lane())
            self._busy_since = None
        return min(timeout_s, max(0.001, busy_s / 4)) if room else timeout_s

    def _take(self, lane: Lane, timeout_s: float, *, wanted: bool = False) -> None:
        """Poll an idle lane. Suspects are set aside again unless they are ``wanted``."""
        self._wants_suspects = wanted
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
        is_new = lane.source is Source.CHANNEL
        message, past = (decode(record), Past()) if is_new else unpack(record)
        place, delivery = lane.place(record), record.delivery_count() or 1
        if lane.source is not Source.SUSPECTS:
            past = past._replace(lost=past.lost + (delivery > 1))
            is_taken = not past.lost
        else:
            past = past._replace(lost=past.lost + delivery - 1)
            is_taken = self._wants_suspects and delivery < self._last_delivery
            if is_taken and self._isolates:
                self._wants_suspects = False
        if is_taken:
            lane.remember(place, message, past)
            self._ready.append(_incoming(message, place, past))
        else:
            self._set_aside(place, message, past)

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() not in TRANSIENT:
            raise _final(KafkaException(error))
        log.info("topic %r: %s", self._topic, error.str())

    # ── settling ──

    def isolate(self, wanted: bool) -> None:
        """See QueueDriver."""
        self._isolates = wanted

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        failures: list[SettleFailure] = []
        for request in requests:
            place: Place = request.token
            if not place.lane.holds(place):
                gone = StaleDelivery("its lock was over before it was settled")
                failures.append(SettleFailure(place, gone))
            elif request.settlement is Settlement.RETRY:
                message, attempt = request.message, request.attempt
                assert message is not None, "a RETRY carries its message"
                assert attempt is not None, "and the attempt that failed"
                self._store_again(place, message, Past(attempt), delay_s=request.delay_s)
            elif request.settlement is Settlement.RELEASE:
                self._give_back(place)
            else:
                place.lane.acknowledge(place, _HOW[request.settlement])
        for lane in self._all_lanes():
            failures += lane.commit()
        return failures

    @property
    def heard_at(self) -> float:
        """When the broker last said anything, on the clock of ``time.monotonic``."""
        # Not by the lanes: those are not polled while handlers are at work.
        return self._mover.heard.at

    def wake(self) -> None:
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        if timeout_s > 0:
            self._give_back_all()
        self._copies.close(timeout_s / 2)
        self._finish_copies()
        # A client that cannot reach the broker takes its time to let go; nobody waits for that.
        closers = [
            threading.Thread(target=close, name="gearshift-kafka-close", daemon=True)
            for close in (*(lane.close for lane in self._all_lanes()), self._mover.close)
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(max(0.5, deadline - time.monotonic()))

    # ── storing again ──

    def _store_again(
        self, place: Place, message: Message, past: Past, *, delay_s: float = 0.0
    ) -> None:
        place.lane.recall(place)
        copy = _Copy(place, message, past, delay_s)
        self._copies.store(message, past, delay_s=delay_s, on_stored=self._reporter(copy))

    def _set_aside(self, place: Place, message: Message, past: Past) -> None:
        self._suspects.expect()
        self._copies.set_aside(message, past, self._reporter(_Copy(place, message, past)))

    def _give_back(self, place: Place) -> None:
        """Have a message come again as it is: the broker would count that."""
        known = place.lane.recall(place)
        if known is None:
            return  # it is being stored
        message, past = known
        if past.lost:
            self._set_aside(place, message, past)
        else:
            self._store_again(place, message, past)

    def _return_what_waits_too_long(self) -> None:
        now = time.monotonic()
        while self._ready and (self._ready[0].return_at or now) <= now:
            self._give_back(self._ready.popleft().token)

    def _give_back_all(self) -> None:
        with contextlib.suppress(KafkaException, NotSupported):
            self._look_after(self._all_lanes(), wanted=False)
        for lane in self._all_lanes():
            for place in lane.places():
                self._give_back(place)

    def _reporter(self, copy: _Copy) -> OnStored:
        def stored(error: KafkaError | None) -> None:
            copy.error = error
            self._stored.append(copy)

        return stored

    def _finish_copies(self) -> None:
        """Settle the originals whose copies are decided."""
        lanes = set()
        while self._stored:
            copy = self._stored.popleft()
            if not copy.place.lane.holds(copy.place):
                continue
            if copy.error is None:
                copy.place.lane.acknowledge(copy.place, AcknowledgeType.ACCEPT)
                lanes.add(copy.place.lane)
            else:
                copy.place.lane.remember(copy.place, copy.message, copy.past)
                self._returned.append(copy.returned(copy.error))
        for lane in lanes:
            for failure in lane.commit():
                log.warning("a retry's original comes again as well: %s", failure.error)


def _incoming(message: Message, place: Place, past: Past) -> Received:
    lane = place.lane
    return Received(
        message,
        place,
        attempt=past.attempts + 1 + (past.lost if past.lost > 1 else 0),
        redelivered=lane.source is not Source.CHANNEL,
        locked_until=lane.locked_until,
        lost=past.lost,
        return_at=lane.return_at,
    )


def _final(failure: Exception) -> Exception:
    """What to raise for what no waiting mends."""
    if code_of(failure) in LACKS_PROTOCOL:
        return no_share_groups()
    return failure
