"""Moving due retries from the delay topic to the retry topic, on every member of the group."""

from __future__ import annotations

import logging
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from gearshift_kafka.leaving import leave_and_close
from gearshift_kafka.names import HelperTopics, topic_partitions
from gearshift_kafka.queue.copies import Copies
from gearshift_kafka.queue.delays import due_s
from gearshift_kafka.signals import Heard

__all__ = ["Mover"]

log = logging.getLogger("gearshift.kafka")

_BATCH = 500

#: What is due within this time goes now, so that a busy partition is not read record by record.
_SLACK_S = 0.02

#: How soon to look again at a partition that could not be moved or sought.
_AGAIN_S = 0.2


class Mover:
    """A member of the consumer group that shares the delay topic's partitions. One thread.

    A partition whose first record is not due is paused until then. A position is committed when
    what lies before it is confirmed in the retry topic, so a crash makes duplicates of a batch at
    most. ``step`` never waits.
    """

    def __init__(
        self, consumer: Consumer, copies: Copies, heard: Heard, topics: HelperTopics
    ) -> None:
        self._consumer = consumer
        self.heard = heard
        self._copies = copies
        self._topics = topics
        self._paused: dict[int, tuple[float, int]] = {}  # partition → when and where to go on
        self._moved: dict[int, int] = {}  # partition → next offset, once confirmed
        self._failed: dict[int, int] = {}  # partition → first offset that was not stored
        self._unconfirmed = 0
        self.has_moved = False  #: the retry topic may hold something
        self.has_suspects = False  #: and the topic of suspects
        consumer.subscribe([topics.delay], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def step(self) -> None:
        """Move what is due. Raises KafkaException."""
        self._copies.serve()
        if self._unconfirmed:
            return
        self._settle()
        self._resume()
        for record in self._consumer.consume(_BATCH, 0):
            if record.error() is None:
                self._consider(record)

    def is_missing(self, topic: str) -> bool:
        """True if the broker says that ``topic`` does not exist. Blocks for a second at most."""
        try:
            return not topic_partitions(self._consumer, topic, 1.0)
        except KafkaException:
            return False  # it does not answer at present

    def look(self) -> None:
        """Ask whether the group's own topics hold something. Blocks for a second or two at most."""
        try:
            self.has_moved = self.has_moved or self._holds(self._topics.retry)
            self.has_suspects = self.has_suspects or self._holds(self._topics.suspects)
        except KafkaException:
            return  # it does not answer at present

    def close(self) -> None:
        """Commit and leave. Blocks while the broker does not answer."""
        if not self._unconfirmed:
            self._settle()
        leave_and_close(self._consumer)

    # ── moving ──

    def _consider(self, record: Record) -> None:
        partition, offset = record.partition(), record.offset()
        assert partition is not None
        assert offset is not None
        if partition in self._paused:
            return  # fetched before it was paused; it is read again
        due = due_s(record)
        if due - time.time() > _SLACK_S:
            self._pause(partition, due, offset)
            return
        self.has_moved = True
        self._unconfirmed += 1
        self._moved[partition] = offset + 1

        def stored(error: KafkaError | None) -> None:
            self._unconfirmed -= 1
            if error is not None:
                log.warning("a retry could not be moved on yet: %s", error.str())
                self._failed[partition] = min(offset, self._failed.get(partition, offset))

        self._copies.move(record, stored)

    def _settle(self) -> None:
        """Commit what was moved, up to what was not; that is read again."""
        positions = self._moved | self._failed
        self._moved, failed, self._failed = {}, self._failed, {}
        if positions:
            places = [self._place(partition, offset) for partition, offset in positions.items()]
            self._consumer.commit(offsets=places, asynchronous=True)
        for partition, offset in failed.items():
            self._pause(partition, time.time() + _AGAIN_S, offset)

    def _pause(self, partition: int, due: float, offset: int) -> None:
        self._paused[partition] = (due, offset)
        self._consumer.pause([self._place(partition)])

    def _resume(self) -> None:
        now = time.time()
        for partition, (due, offset) in list(self._paused.items()):
            if due > now:
                continue
            self._consumer.resume([self._place(partition)])
            try:
                self._consumer.seek(self._place(partition, offset))
            except KafkaException:  # an assignment takes a moment to settle
                self._paused[partition] = (now + _AGAIN_S, offset)
            else:
                del self._paused[partition]

    def _holds(self, topic: str) -> bool:
        first, end = self._consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=1.0)
        return end > first

    def _place(self, partition: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(self._topics.delay, partition, offset)

    # ── callbacks of the client, inside consume(): nothing is unconfirmed then. What one raises
    #    comes out of consume() as a KafkaError, which is no exception: nothing can catch it. ──

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if places:
            self.look()

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        gone = [place.partition for place in places if place.partition in self._paused]
        if gone:
            consumer.resume([self._place(partition) for partition in gone])
        for partition in gone:
            del self._paused[partition]
