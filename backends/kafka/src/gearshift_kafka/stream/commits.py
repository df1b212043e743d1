"""Positions on their way to the broker: sent one request at a time, kept until it has them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from gearshift.driver import Place
from gearshift_kafka.errors import GONE, TRANSIENT
from gearshift_kafka.stream.offsets import to_commit

__all__ = ["Commits"]

log = logging.getLogger("gearshift.kafka")

_RETRY_AFTER_S = 0.25


class Commits:
    """Positions that a group member has to commit. One thread: the consumer's.

    Every commit is asynchronous. The client's synchronous one has no timeout: with a broker that
    does not answer it blocks for as long as that lasts (measured), inside a rebalance as well.
    Order is safe without: requests of one member travel on one connection, and the client lets go
    of a partition only when commits that were sent before have been answered.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._wanted: dict[int, Place] = {}
        self._unanswered = 0
        self._not_before = 0.0
        self.failure: KafkaException | None = None

    @property
    def pending(self) -> bool:
        """True while the broker may not have everything."""
        return bool(self._wanted or self._unanswered)

    def want(self, positions: Mapping[int, Place]) -> None:
        """Newer positions for partitions that are owned."""
        self._wanted.update(positions)

    def drop(self, partitions: Iterable[int]) -> None:
        """These partitions are not owned any more."""
        for partition in partitions:
            self._wanted.pop(partition, None)

    def send(self, consumer: Consumer) -> None:
        """Send what is wanted, unless a request is under way: then the next one takes it along."""
        if self._wanted and not self._unanswered and time.monotonic() >= self._not_before:
            self.send_now(consumer, self._wanted)

    def send_now(self, consumer: Consumer, positions: Mapping[int, Place]) -> None:
        """Send ``positions``, whatever is under way. Does not wait; results go to on_commit."""
        if not positions:
            return
        try:
            consumer.commit(offsets=to_commit(self._topic, positions), asynchronous=True)
        except KafkaException as error:
            self._failed(error.args[0], sorted(positions))
            return
        self._unanswered += 1

    def on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """The client's callback: one request has its answer."""
        self._unanswered -= 1
        for answered in places:
            failure = answered.error or error
            wanted = self._wanted.get(answered.partition)
            if failure is not None:
                self._failed(failure, [answered.partition])
            elif wanted == answered.offset and wanted.note == (answered.metadata or ""):
                del self._wanted[answered.partition]

    def _failed(self, error: KafkaError, partitions: list[int]) -> None:
        log.warning("topic %r: commit for %s: %s", self._topic, partitions, error.str())
        if error.code() in GONE:
            self.drop(partitions)  # its messages go to the next owner
        elif error.code() in TRANSIENT or error.retriable():
            self._not_before = time.monotonic() + _RETRY_AFTER_S
        else:
            self.failure = KafkaException(error)
