"""Reading a whole topic without a group."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaException

from gearshift.driver import LogEvents, Place, Received, Start
from gearshift_kafka.names import topic_partitions
from gearshift_kafka.signals import Signals
from gearshift_kafka.stream.offsets import beginnings
from gearshift_kafka.stream.reader import StreamReader

__all__ = ["EphemeralStreamConsumer"]

log = logging.getLogger("gearshift.kafka")

_TOPIC_CHECK_S = 2.0


class EphemeralStreamConsumer(StreamReader):
    """Reads every partition for itself; commits nothing, so no group is left behind.

    What is added to the topic later it reads from its beginning.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        events: LogEvents,
        signals: Signals,
        *,
        start: Start,
        partitions: Sequence[int],
        refresh_s: float,
    ) -> None:
        """Stands at ``start`` when it has been made. Blocks; raises KafkaException.

        Looks for further partitions every ``refresh_s`` seconds.
        """
        super().__init__(consumer, topic, events, signals)
        self._told = False
        self._refresh_s = refresh_s
        self._refresh_at = time.monotonic() + refresh_s
        self._take_on(beginnings(consumer, topic, partitions, start))

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        if not self._told:
            self._told = True
            self._events.assigned(sorted(self._next))
        return super().receive(max_messages, timeout_s)

    def commit(self, positions: Mapping[int, Place]) -> None:
        """There is no position to keep."""

    def flush(self, timeout_s: float) -> bool:
        return True

    def _after_poll(self) -> None:
        if self._paused:  # it asks for nothing, and has no coordinator that says something
            self._signals.heard.at = time.monotonic()
        if time.monotonic() < self._refresh_at:
            return
        self._refresh_at = time.monotonic() + self._refresh_s
        try:
            there = topic_partitions(self._consumer, self._topic, _TOPIC_CHECK_S)
            added = [partition for partition in there if partition not in self._next]
            self._take_on(beginnings(self._consumer, self._topic, added, Start()))
        except KafkaException as error:
            log.info("topic %r: looking for new partitions: %s", self._topic, error)
            return
        if added:
            self._events.assigned(added)
