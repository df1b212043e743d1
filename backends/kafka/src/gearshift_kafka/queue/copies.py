"""Storing messages again: a copy in a topic of the group, confirmed before the original goes.

Kafka has no timers, and a share group's lock is short and cannot be renewed by this client. So a
message that must wait is stored once more, with the attempts that it has had, and its original
is accepted only when the copy is confirmed: a crash in between makes a duplicate and loses nothing.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from gearshift.message import Message
from gearshift_kafka.names import HelperTopics, topic_partitions
from gearshift_kafka.queue.delays import Past, copy_headers, step_of, with_due, without_due
from gearshift_kafka.queue.lane import Token
from gearshift_kafka.wire import RecordHeaders, encode_key

__all__ = ["Copies", "Copy"]

_CONNECT_S = 1.0

OnStored = Callable[[KafkaError | None], None]


@dataclass(slots=True)
class Copy:
    """A message that is being stored again, after ``delay_s``; ``error`` is why it could not be."""

    token: Token
    message: Message
    past: Past
    delay_s: float = 0.0
    error: KafkaError | None = None


class Copies:
    """The producer of one group's copies; connects on first use. One thread.

    Callbacks run inside ``serve``, which also adds to ``decided``.
    """

    def __init__(self, connect: Callable[[], Producer], topics: HelperTopics) -> None:
        self._connect = connect
        self._topics = topics
        self._producer: Producer | None = None
        self.decided: deque[Copy] = deque()  #: copies that are stored, or could not be

    def store(self, copy: Copy) -> None:
        """Have a message come again after its delay."""
        headers = with_due(copy_headers(copy.message, copy.past), copy.delay_s)
        self._copy(copy, self._topics.delay, headers, step_of(copy.delay_s))

    def set_aside(self, copy: Copy) -> None:
        """Have a message come again among the suspects."""
        self._copy(copy, self._topics.suspects, copy_headers(copy.message, copy.past), 0)

    def move(self, record: Record, on_stored: OnStored) -> None:
        """Hand a due record of the delay topic to the group."""
        headers = without_due(record)
        self._produce(self._topics.retry, record.value(), record.key(), headers, 0, on_stored)

    def _copy(self, copy: Copy, topic: str, headers: RecordHeaders, partition: int) -> None:
        def on_stored(error: KafkaError | None) -> None:
            copy.error = error
            self.decided.append(copy)

        key = encode_key(copy.message.key)
        self._produce(topic, copy.message.body, key, headers, partition, on_stored)

    def serve(self) -> None:
        """Run the callbacks of what has been decided. Never waits."""
        if self._producer is not None:
            self._producer.poll(0)

    def close(self, timeout_s: float) -> None:
        """Wait for confirms, then give up what has none."""
        if self._producer is not None and self._producer.flush(timeout_s):
            self._producer.purge()
            self._producer.flush(1.0)  # answers from memory

    def _produce(
        self,
        topic: str,
        value: Any,
        key: Any,
        headers: RecordHeaders,
        partition: int,
        on_stored: OnStored,
    ) -> None:
        if self._producer is None:
            self._producer = self._connect()
            # An idempotent producer that is not connected yet looks again after half a second.
            with contextlib.suppress(KafkaException):
                topic_partitions(self._producer, topic, _CONNECT_S)
        try:
            self._producer.produce(
                topic,
                value,
                key,
                partition=partition,
                headers=headers,
                on_delivery=lambda error, _: on_stored(error),
            )
        except BufferError:
            on_stored(KafkaError(KafkaError._QUEUE_FULL))
