"""Reading a topic as a member of a consumer group, or alone without leaving a trace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from gearshift.driver import Incoming, LogEvents, Start, StartAt
from gearshift.message import Position
from gearshift_kafka.errors import is_fatal
from gearshift_kafka.wire import from_record

__all__ = ["GroupReader", "KafkaReader", "LoneReader"]

log = logging.getLogger("gearshift.kafka")

#: Longest single poll, so that ``wake`` need not interrupt one. Seconds.
_SLICE_S = 0.1

#: With this much time between fetches partitions are paused, so that the client buffers no more.
_PAUSE_AFTER_S = 1.0

#: A member that was given nothing for so long after joining owns nothing.
_NOTHING_ASSIGNED_AFTER_S = 4.0

#: Consecutive errors of one kind that are more than a passing fault (a corrupt batch, say).
_MAX_ERRORS = 20

_QUERY_TIMEOUT_S = 5.0

#: Errors of a commit whose partitions are somebody else's by now.
_GONE = frozenset(
    (
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._NO_OFFSET,
        KafkaError.STALE_MEMBER_EPOCH if hasattr(KafkaError, "STALE_MEMBER_EPOCH") else -999,
        KafkaError.FENCED_INSTANCE_ID,
    )
)


class KafkaReader:
    """What both readers share; see LogDriver. One thread."""

    def __init__(self, consumer: Consumer, topic: str, events: LogEvents, start: Start) -> None:
        self._consumer = consumer
        self._topic = topic
        self._events = events
        self._start = start
        self._owned: set[int] = set()
        self._spare: list[Any] = []  # polled while nothing was wanted
        self._paused = False
        self._idle_since: float | None = None
        self._errors = 0
        self._woken = threading.Event()
        self._closed = False

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Incoming]:
        if max_messages == 0:
            self._keep_membership(timeout_s)
            return ()
        self._resume()
        records, self._spare = self._spare[:max_messages], self._spare[max_messages:]
        deadline = time.monotonic() + timeout_s
        while not records:
            left = deadline - time.monotonic()
            record = self._consumer.poll(max(0.0, min(left, _SLICE_S)))
            if record is not None:
                records.append(record)
            elif left <= 0 or self._woken.is_set():
                break
            self._after_poll()
        self._woken.clear()
        if records and len(records) < max_messages:
            records += self._consumer.consume(max_messages - len(records), 0)
        return [self._incoming(record) for record in records if self._is_good(record)]

    def commit(self, positions: Mapping[int, int]) -> None:
        raise NotImplementedError

    def seek(self, start: Start) -> None:
        self._spare.clear()
        for partition, offset in self._offsets(sorted(self._owned), start).items():
            self._consumer.seek(TopicPartition(self._topic, partition, offset))

    def wake(self) -> None:
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._finish(timeout_s)
        # close() waits for the group's coordinator, which may be gone.
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(max(2.0, timeout_s))
        if closing.is_alive():
            log.warning("topic %r: the client did not close in time", self._topic)

    def _finish(self, timeout_s: float) -> None:
        """Before the client is closed."""

    def _after_poll(self) -> None:
        """After a poll that may have changed what is owned."""

    def _keep_membership(self, timeout_s: float) -> None:
        """Serve the client without taking messages; at first one may come, which is kept."""
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if not self._paused and now - self._idle_since > _PAUSE_AFTER_S and self._owned:
            self._consumer.pause(self._partitions())
            self._paused = True
        if self._spare and not self._paused:
            self._woken.wait(timeout_s)
        else:
            deadline = now + timeout_s
            while time.monotonic() < deadline and not self._woken.is_set():
                record = self._consumer.poll(min(_SLICE_S, timeout_s))
                if record is not None:
                    self._spare.append(record)
                    break
        self._woken.clear()

    def _resume(self) -> None:
        self._idle_since = None
        if self._paused:
            self._consumer.resume(self._partitions())
            self._paused = False

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in sorted(self._owned)]

    def _is_good(self, record: Any) -> bool:
        """True for a message of a partition that is owned; raises what nothing will mend."""
        error = record.error()
        if error is None:
            self._errors = 0
            return record.partition() in self._owned
        self._errors += 1
        if is_fatal(error) or self._errors > _MAX_ERRORS:
            raise KafkaException(error)
        log.warning("topic %r: %s", self._topic, error.str())
        return False

    @staticmethod
    def _incoming(record: Any) -> Incoming:
        position = Position(record.partition(), record.offset())
        return Incoming(from_record(record), position, position)

    def _offsets(self, partitions: Sequence[int], start: Start) -> dict[int, int]:
        """The offset that ``start`` means in each partition, absolute where it can be."""
        if start.at is StartAt.OFFSET:
            return {p: start.positions[p] for p in partitions if p in start.positions}
        if start.at is StartAt.EARLIEST:
            return {p: self._watermarks(p)[0] for p in partitions}
        if start.at is StartAt.LATEST:
            return {p: self._watermarks(p)[1] for p in partitions}
        wanted = [TopicPartition(self._topic, p, start.time_ms or 0) for p in partitions]
        found = self._consumer.offsets_for_times(wanted, timeout=_QUERY_TIMEOUT_S)
        return {
            item.partition: item.offset if item.offset >= 0 else self._watermarks(item.partition)[1]
            for item in found
        }

    def _watermarks(self, partition: int) -> tuple[int, int]:
        place = TopicPartition(self._topic, partition)
        low_high = self._consumer.get_watermark_offsets(place, timeout=_QUERY_TIMEOUT_S)
        if low_high is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return low_high[0], low_high[1]


class GroupReader(KafkaReader):
    """A member of a group. Positions are committed as core gives them, and never otherwise."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        events: LogEvents,
        start: Start,
        commit_errors: list[KafkaError],
    ) -> None:
        super().__init__(consumer, topic, events, start)
        self._commit_errors = commit_errors  # filled by the client's on_commit
        self._latest: dict[int, int] = {}
        self._told = False
        self._subscribed_at = time.monotonic()
        consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Incoming]:
        self._raise_commit_errors()
        incoming = super().receive(max_messages, timeout_s)
        self._after_poll()
        return incoming

    def commit(self, positions: Mapping[int, int]) -> None:
        mine = {p: offset for p, offset in positions.items() if p in self._owned}
        self._latest |= mine
        if mine:
            self._consumer.commit(offsets=self._places(mine), asynchronous=True)

    def _finish(self, timeout_s: float) -> None:
        """An asynchronous commit may still be on its way; the last positions are made sure of."""
        self._commit_now({p: o for p, o in self._latest.items() if p in self._owned})

    def _after_poll(self) -> None:
        if not self._told and time.monotonic() - self._subscribed_at > _NOTHING_ASSIGNED_AFTER_S:
            self._told = True
            self._events.assigned([])

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [place.partition for place in places]
        self._owned.update(partitions)
        # librdkafka takes up the assignment by itself unless we do: we do where the group has no
        # position yet and should not begin at the start.
        if self._start.at is not StartAt.EARLIEST and places:
            begun = consumer.committed(places, timeout=_QUERY_TIMEOUT_S)
            fresh = [place.partition for place in begun if place.offset < 0]
            offsets = self._offsets(fresh, self._start)
            for place in begun:
                place.offset = offsets.get(place.partition, max(place.offset, OFFSET_BEGINNING))
            consumer.incremental_assign(begun)
        self._paused = False
        self._told = True
        self._events.assigned(partitions)

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [place.partition for place in places]
        if not self._closed:
            self._commit_now(self._events.revoked(partitions))
        self._disown(partitions)

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = [place.partition for place in places]
        if not self._closed:
            self._events.lost(partitions)
        self._disown(partitions)

    def _disown(self, partitions: Sequence[int]) -> None:
        self._owned.difference_update(partitions)
        self._spare = [r for r in self._spare if r.error() or r.partition() in self._owned]
        for partition in partitions:
            self._latest.pop(partition, None)

    def _commit_now(self, positions: Mapping[int, int]) -> None:
        if not positions:
            return
        try:
            self._consumer.commit(offsets=self._places(positions), asynchronous=False)
        except KafkaException as error:
            log.warning("topic %r: the last commit failed: %s", self._topic, error.args[0].str())

    def _places(self, positions: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, p, offset) for p, offset in positions.items()]

    def _raise_commit_errors(self) -> None:
        while self._commit_errors:
            error = self._commit_errors.pop(0)
            if error.code() in _GONE or error.retriable():
                log.warning("topic %r: a commit was refused: %s", self._topic, error.str())
            elif is_fatal(error):
                raise KafkaException(error)
            else:
                log.warning("topic %r: a commit failed: %s", self._topic, error.str())
                if self._latest:  # the next one carries it
                    self._consumer.commit(offsets=self._places(self._latest), asynchronous=True)
                    return


class LoneReader(KafkaReader):
    """Reads every partition for itself; commits nothing, so no group is left behind."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        events: LogEvents,
        start: Start,
        partitions: Sequence[int],
    ) -> None:
        super().__init__(consumer, topic, events, start)
        self._owned.update(partitions)
        offsets = self._offsets(partitions, start)
        consumer.assign(
            [TopicPartition(topic, p, offsets.get(p, OFFSET_BEGINNING)) for p in partitions]
        )
        events.assigned(partitions)

    def commit(self, positions: Mapping[int, int]) -> None:
        """A lone reader has no position to keep."""
