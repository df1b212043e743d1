"""Reading partitions: polling in slices, pausing, seeking, errors that come instead of messages."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import Message as Record

from gearshift.driver import LogDriver, LogEvents, Received, Start
from gearshift.errors import UnknownChannel
from gearshift.message import Position
from gearshift_kafka.errors import CORRUPT, TRANSIENT, UNKNOWN_TOPIC
from gearshift_kafka.names import topic_partitions
from gearshift_kafka.signals import Signals
from gearshift_kafka.stream.offsets import place, resolve
from gearshift_kafka.wire import UnreadRecord

__all__ = ["StreamReader"]

log = logging.getLogger("gearshift.kafka")

#: Longest single poll, so that ``wake`` need not interrupt one. Seconds.
SLICE_S = 0.1

#: With so much polled while none was wanted, partitions are paused until it is used up. Pausing
#: throws away what the client has fetched ahead, up to 16 MiB, so it must not happen often: with
#: less, a slow handler on a backlog had a hundred messages fetched for each that it got (measured).
_HAND_LIMIT = 1000
_HAND_BYTES = 16 * 2**20

#: The more is polled while none is wanted, the less often: a poll takes a message, and a handler of
#: 0.1 s would have more polled than it takes. At most this long, so that a rebalance is not kept
#: waiting. Seconds.
_LONGEST_GAP_S = 1.0

#: The same error for the same partition so often in a row is no passing fault.
_MAX_FAULTS = 3

_SEEK_TIMEOUT_S = 3.0
_TOPIC_CHECK_S = 2.0
#: The partition has no record at the offset to read from, so nothing more of it comes.
_NOTHING_THERE = frozenset((KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION))

_IGNORED = frozenset((KafkaError._MAX_POLL_EXCEEDED,))


class StreamReader(LogDriver):
    """Reads partitions for a stream consumer, in a group or without one.

    Errors that no waiting will mend, left by the client's callbacks, are raised by ``receive``.
    """

    def __init__(self, consumer: Consumer, topic: str, events: LogEvents, signals: Signals) -> None:
        self._consumer = consumer
        self._topic = topic
        self._events = events
        self._signals = signals
        self._next: dict[int, int] = {}  # every partition that is owned: the next offset to take
        self._hand: deque[Received] = deque()  # taken while nothing was wanted
        self._paused = False
        self._poll_at = 0.0  # while none is wanted: not before
        self._faults: dict[int, int] = {}
        self._woken = threading.Event()
        self._closed = False

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        self._signals.raise_failure()
        self._signals.heard.watch(self._topic)
        deadline = time.monotonic() + timeout_s
        received: list[Received] = []
        if max_messages == 0:
            self._rest(deadline)
        else:
            received = self._take(max_messages, deadline)
        self._woken.clear()
        return received

    def seek(self, start: Start) -> None:
        self._signals.raise_failure()
        self._resume()
        targets = resolve(self._consumer, self._topic, sorted(self._next), start)
        self._hand = deque(i for i in self._hand if i.token.partition not in targets)
        self._move(targets)

    @property
    def heard_at(self) -> float:
        return self._signals.heard.at

    def wake(self) -> None:
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._finish(timeout_s)

    # ── for subclasses ──

    def _finish(self, timeout_s: float) -> None:
        """Let go of the client."""
        self._consumer.close()

    def _after_poll(self) -> None:
        """Work that is due between polls."""

    def _passed(self, partition: int, offset: int, end: int) -> None:
        """The log ends with no record from ``offset`` to ``end``, which is the next one now."""

    # ── taking messages ──

    def _take(self, max_messages: int, deadline: float) -> list[Received]:
        if self._hand:
            count = min(max_messages, len(self._hand))
            return [self._hand.popleft() for _ in range(count)]
        self._resume()
        while True:
            left = deadline - time.monotonic()
            received = self._poll(max_messages, min(SLICE_S, left))
            if received or left <= 0 or self._woken.is_set():
                return received
            self._signals.raise_failure()

    def _rest(self, deadline: float) -> None:
        """Serve the client and take no messages, or few: those stay in the hand."""
        while True:
            if not self._paused and self._is_hand_full():
                self._pause()
            now = time.monotonic()
            rests = not self._paused and now < self._poll_at
            if rests:
                self._after_poll()
            elif polled := self._poll(1, min(SLICE_S, deadline - now)):
                # The next message is there already, and asking for it soon would fill the hand.
                self._hand.extend(polled)
                rests = True
                self._poll_at = now + min(SLICE_S * len(self._hand), _LONGEST_GAP_S)
            left = deadline - time.monotonic()
            if left <= 0 or self._woken.wait(min(SLICE_S, left) if rests else 0):
                return
            self._signals.raise_failure()

    def _is_hand_full(self) -> bool:
        if len(self._hand) >= _HAND_LIMIT:
            return True
        return sum(one.message.size for one in self._hand) >= _HAND_BYTES

    def _poll(self, max_messages: int, timeout_s: float) -> list[Received]:
        """Messages that are there, or the first that comes within ``timeout_s``; runs callbacks."""
        records = self._consumer.consume(max_messages, 0)
        if not records and timeout_s > 0:
            # Asked for more, the client would wait for all of them or the timeout.
            records = self._consumer.consume(1, timeout_s)
            if records and max_messages > 1:
                records += self._consumer.consume(max_messages - 1, 0)
        self._after_poll()
        return self._sift(records) if records else []

    def _sift(self, records: Sequence[Record]) -> list[Received]:
        received = []
        owned = self._next
        for record in records:
            error = record.error()
            if error is not None:
                self._note_fault(error, record)
                continue
            partition, offset = record.partition(), record.offset()
            # A callback during the same poll may have taken the partition away.
            if partition in owned and partition is not None and offset is not None:
                owned[partition] = offset + 1
                position = Position(partition, offset)
                message = UnreadRecord(record.value(), source=record)
                received.append(Received(message, position, position))
        if received and self._faults:
            self._faults.clear()
        return received

    # ── errors ──

    def _note_fault(self, error: KafkaError, record: Record) -> None:
        """Decide about an error that came instead of a message; raised by the next receive."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._note_end(record.partition(), record.offset())
        elif code in _IGNORED or (code in TRANSIENT and not error.fatal()):
            log.info("topic %r: %s", self._topic, error.str())
        elif code in _NOTHING_THERE:
            self._go_on_with_the_oldest(record.partition())
        elif code in UNKNOWN_TOPIC:
            self._note_missing_topic()
        elif code in CORRUPT and not self._is_lasting(record.partition()):
            log.warning("topic %r: %s", self._topic, error.str())
        else:
            self._signals.failures.append(KafkaException(error))

    def _is_lasting(self, partition: int | None) -> bool:
        number = -1 if partition is None else partition
        self._faults[number] = self._faults.get(number, 0) + 1
        return self._faults[number] >= _MAX_FAULTS

    def _note_missing_topic(self) -> None:
        # A broker that has just started may not know its topics yet, so it is asked once more.
        try:
            missing = not topic_partitions(self._consumer, self._topic, _TOPIC_CHECK_S)
        except KafkaException:
            missing = False
        if missing:
            gone = UnknownChannel(f"topic {self._topic!r} does not exist any more")
            self._signals.failures.append(gone)

    def _note_end(self, partition: int | None, end: int | None) -> None:
        # The last offsets of a log may hold no record: a transaction ends with a marker.
        if partition in self._next and partition is not None and end is not None:
            offset = self._next[partition]
            if end > offset:
                self._next[partition] = end
                self._passed(partition, offset, end)

    def _go_on_with_the_oldest(self, partition: int | None) -> None:
        """The broker has no record at the next offset: retention has overtaken this consumer."""
        if partition is None or partition not in self._next:
            return
        expected = self._next[partition]
        oldest = resolve(self._consumer, self._topic, [partition], Start())
        # The client has stopped fetching the partition, so it cannot be moved, only taken anew.
        self._consumer.incremental_unassign(place(self._topic, oldest))
        self._take_on(oldest)
        if oldest[partition] > expected:
            self._events.skipped(partition, oldest[partition] - expected)
        else:
            log.warning(
                "topic %r, partition %d ends before position %d, so it was cut off or made anew: "
                "going on with its oldest message, %d",
                self._topic, partition, expected, oldest[partition],
            )  # fmt: skip

    # ── pausing and moving ──

    def _take_on(self, offsets: Mapping[int, int]) -> None:
        """Read further partitions as well, from these offsets on."""
        targets = place(self._topic, offsets)
        self._consumer.incremental_assign(targets)
        self._next.update(offsets)
        if self._paused:
            self._consumer.pause(targets)

    def _pause(self) -> None:
        self._consumer.pause(place(self._topic, self._next))
        self._paused = True

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume(place(self._topic, self._next))
            self._paused = False
            # A pause soon after an assignment makes the client forget its offset (measured;
            # librdkafka#2190), so it is told again.
            self._move(self._next)

    def _move(self, offsets: Mapping[int, int]) -> None:
        for target in place(self._topic, dict(offsets)):
            self._seek_one(target.partition, target.offset)
            self._next[target.partition] = target.offset

    def _seek_one(self, partition: int, offset: int) -> None:
        deadline = time.monotonic() + _SEEK_TIMEOUT_S
        (target,) = place(self._topic, {partition: offset})
        while True:
            try:
                self._consumer.seek(target)
                return
            except KafkaException as error:
                # Only what is being fetched can be moved; an assignment takes a moment.
                if error.args[0].code() != KafkaError._STATE or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
