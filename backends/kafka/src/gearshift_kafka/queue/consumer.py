"""The queue driver: lanes that acquire, an account of what they hold, and retries that wait."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from confluent_kafka import AcknowledgeType, KafkaError, KafkaException
from confluent_kafka import Message as Record
from msgspec import structs

from gearshift.driver import (
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
    Unstored,
)
from gearshift.driver.helpers import attempt_after, retried
from gearshift.errors import NotSupported, StaleDelivery, UnknownChannel
from gearshift.message import Message
from gearshift_kafka.errors import LACKS_PROTOCOL, TRANSIENT, code_of
from gearshift_kafka.queue.copies import Copies, Copy
from gearshift_kafka.queue.delays import Past, unpack
from gearshift_kafka.queue.lane import Lane, LaneFactory, Source, Token
from gearshift_kafka.queue.limits import no_share_groups
from gearshift_kafka.queue.mover import Mover
from gearshift_kafka.queue.suspects import Suspects
from gearshift_kafka.signals import Signals
from gearshift_kafka.wire import decode

__all__ = ["MOST_LANES", "QueueConsumer", "lane_size"]

log = logging.getLogger("gearshift.kafka")

#: Longest single poll: the client cannot be woken from one. Seconds.
_SLICE_S = 0.1

MOST_LANES = 4

#: With every lane waiting for its handlers for so long in all, another one is opened. Seconds.
_STALLED_S = 0.5

#: How often to ask whether the topic is still there, while nothing comes: the client never says.
_CHECK_EVERY_S = 5.0

#: How often to ask whether others have left retries or suspects, until there have been some.
_LOOK_EVERY_S = 10.0

_HOW = {Settlement.ACK: AcknowledgeType.ACCEPT, Settlement.DISCARD: AcknowledgeType.REJECT}


def lane_size(prefetch: int) -> int:
    """Messages that one lane may hold, so that all lanes together hold ``prefetch``."""
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
        new_lane: LaneFactory,
        copies: Copies,
        mover: Mover,
        signals: Signals,
        *,
        deliveries: int,
    ) -> None:
        self._topic = topic
        self._new_lane = new_lane
        self._suspects = Suspects(new_lane)
        self._copies = copies
        self._mover = mover
        self._signals = signals
        self._last_delivery = deliveries - 1
        self._lanes = [new_lane(Source.CHANNEL)]
        self._ready: deque[Received] = deque()
        self._returned: list[Received] = []  # whose copies could not be stored
        self._busy_since: float | None = None
        self._stalled_s = 0.0  # how long lanes were too few since the queue was empty
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
        """Do what is due between polls."""
        if self._signals.failures:
            raise _final(self._signals.failures.popleft())
        self._mover.step()
        self._mover.heard.watch(self._topic)
        self._finish_copies()
        for lane in self._all_lanes():
            lane.give_up_expired()
        self._return_what_waits_too_long()
        if self._mover.has_moved and not any(lane.source is Source.RETRIES for lane in self._lanes):
            self._lanes.append(self._new_lane(Source.RETRIES))
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
        if room and not self._isolates:
            if self._suspects.are_expected:
                self._suspects.make_room(self._lanes[0].size, MOST_LANES)
                return self._fill(self._all_lanes(), room, timeout_s)
            return self._fill(self._lanes, room, timeout_s)
        is_free = room > 0 and not self._ready and all(one.is_idle for one in self._all_lanes())
        if is_free and self._suspects.are_expected:
            self._poll_suspect(timeout_s)
            return True
        is_paused = self._suspects.are_expected or not room
        asked = self._all_lanes() if is_paused else self._suspects.lanes
        self._look_after(asked, wanted=is_free)
        if not self._suspects.are_expected:
            return self._fill(self._lanes, room, timeout_s)
        if not is_free:
            self._nap(room, timeout_s)
        return is_free

    def _fill(self, lanes: Sequence[Lane], room: int, timeout_s: float) -> bool:
        """Poll those of ``lanes`` that are idle and have room; as ``_poll``."""
        idle = [lane for lane in lanes if lane.is_idle]
        if not room or len(idle) < len(lanes):  # large messages never leave room for many
            idle = [lane for lane in idle if lane.size <= room]
        if not idle:
            self._nap(room, timeout_s)
            return False
        self._busy_since = None
        self._lanes.append(self._lanes.pop(0))  # each in its turn waits for the first message
        for lane in idle[:-1]:
            self._take(lane, 0.0, wanted=True)
        self._take(idle[-1], 0.0 if self._ready else timeout_s, wanted=True)
        if not self._ready:
            self._stalled_s = 0.0
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

    def _nap(self, room: int, timeout_s: float) -> None:
        """Let handlers work: in proportion to how long they have worked so far.

        With short handlers each nap is short, and many of them tell as well that lanes are too few.
        """
        now = time.monotonic()
        if not room or self._busy_since is None:
            self._busy_since = now
        busy_s = now - self._busy_since
        self._woken.wait(min(timeout_s, max(0.001, busy_s / 4)) if room else timeout_s)
        if room >= self._lanes[0].size:
            self._stalled_s += time.monotonic() - now
        lanes = sum(lane.source is Source.CHANNEL for lane in self._lanes)
        may_open = lanes < MOST_LANES and not self._suspects.are_expected
        if self._stalled_s > _STALLED_S and may_open:
            self._lanes.append(self._new_lane(Source.CHANNEL))
            self._busy_since, self._stalled_s = None, 0.0

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
        token, delivery = lane.token(record), record.delivery_count() or 1
        if lane.source is not Source.SUSPECTS:
            past = past._replace(lost=past.lost + (delivery > 1))
            is_taken = not past.lost
        else:
            past = past._replace(lost=past.lost + delivery - 1)
            is_taken = self._wants_suspects and delivery < self._last_delivery
            if is_taken and self._isolates:
                self._wants_suspects = False
        if is_taken:
            lane.remember(token, message, past)
            self._ready.append(_received(message, token, past))
        else:
            self._set_aside(token, message, past)

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() not in TRANSIENT:
            raise _final(KafkaException(error))
        log.info("topic %r: %s", self._topic, error.str())

    # ── settling ──

    def isolate(self, wanted: bool) -> None:
        self._isolates = wanted

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        failures: list[SettleFailure] = []
        for request in requests:
            token: Token = request.token
            if not token.lane.holds(token):
                gone = StaleDelivery("its lock was over before it was settled")
                failures.append(SettleFailure(token, gone))
            elif request.settlement is Settlement.RETRY:
                message, failed = retried(request)
                self._store_again(Copy(token, message, Past(failed), request.delay_s))
            elif request.settlement is Settlement.RELEASE:
                self._give_back(token)
            else:
                token.lane.acknowledge(token, _HOW[request.settlement])
        for lane in self._all_lanes():
            failures += lane.commit()
        return failures

    @property
    def heard_at(self) -> float:
        # Not by the lanes: those are not polled while handlers are at work.
        return self._mover.heard.at

    @property
    def drained(self) -> bool:
        is_waiting = bool(self._ready or self._returned or self._suspects.are_expected)
        return not is_waiting and all(lane.is_drained for lane in self._all_lanes())

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

    def _store_again(self, copy: Copy) -> None:
        copy.token.lane.recall(copy.token)
        self._copies.store(copy)

    def _set_aside(self, token: Token, message: Message, past: Past) -> None:
        self._suspects.expect()
        self._copies.set_aside(Copy(token, message, past))

    def _give_back(self, token: Token) -> None:
        """Have a message come again as it is: the broker would count that."""
        known = token.lane.recall(token)
        if known is None:
            return  # it is being stored
        if known[1].lost:
            self._set_aside(token, *known)
        else:
            self._store_again(Copy(token, *known))

    def _return_what_waits_too_long(self) -> None:
        now = time.monotonic()
        while self._ready and (self._ready[0].return_at or now) <= now:
            self._give_back(self._ready.popleft().token)

    def _give_back_all(self) -> None:
        with contextlib.suppress(KafkaException, NotSupported):
            self._look_after(self._all_lanes(), wanted=False)
        for lane in self._all_lanes():
            for token in lane.held():
                self._give_back(token)

    def _finish_copies(self) -> None:
        """Settle the originals whose copies are decided."""
        lanes = set()
        while self._copies.decided:
            copy = self._copies.decided.popleft()
            token, lane = copy.token, copy.token.lane
            if not lane.holds(token):
                continue
            if copy.error is None:
                lane.acknowledge(token, AcknowledgeType.ACCEPT)
                lanes.add(lane)
            else:
                lane.remember(token, copy.message, copy.past)
                self._returned.append(_returned(copy, copy.error))
        for lane in lanes:
            for failure in lane.commit():
                log.warning("a retry's original comes again as well: %s", failure.error)


def _returned(copy: Copy, error: KafkaError) -> Received:
    """The message for core whose copy could not be stored."""
    return structs.replace(
        _received(copy.message, copy.token, copy.past),
        redelivered=True,
        lost=0,  # it cannot come alone
        return_at=None,
        unstored=Unstored(KafkaException(error), copy.delay_s),
    )


def _received(message: Message, token: Token, past: Past) -> Received:
    lane = token.lane
    return Received(
        message,
        token,
        attempt=attempt_after(past.attempts, past.lost),
        redelivered=lane.source is not Source.CHANNEL,
        locked_until=lane.locked_until,
        lost=past.lost,
        return_at=lane.return_at,
    )


def _final(failure: Exception) -> Exception:
    """The error to raise for a failure that no waiting mends."""
    if code_of(failure) in LACKS_PROTOCOL:
        return no_share_groups()
    return failure
