"""Storing messages again: a copy in a topic of the group, confirmed before the original goes.

Kafka has no timers, and a share group's lock is short and cannot be renewed by this client. So a
message that must wait is stored once more, with the attempts that it has had, and its original
is accepted only when the copy is confirmed: a crash in between makes a duplicate and loses nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from gearshift.message import Message
from gearshift_kafka.names import topic_partitions
from gearshift_kafka.queue.delays import Past, copy_headers, step_of, with_due, without_due
from gearshift_kafka.wire import encode_key

__all__ = ["Copies", "OnStored"]

_CONNECT_S = 1.0

OnStored = Callable[[KafkaError | None], None]


class Copies:
    """The producer of one group's copies; connects on first use. One thread.

    Results come from within ``serve``.
    """

    def __init__(
        self, connect: Callable[[], Producer], *, delay: str, retry: str, suspects: str
    ) -> None:
        self._connect = connect
        self._delay = delay
        self._retry = retry
        self._suspects = suspects
        self._producer: Producer | None = None

    def store(self, message: Message, past: Past, *, delay_s: float, on_stored: OnStored) -> None:
        """Have ``message`` come again after ``delay_s``, as one with that ``past``."""
        self._produce(
            self._delay,
            message.body,
            encode_key(message.key),
            partition=step_of(delay_s),
            headers=with_due(copy_headers(message, past), delay_s),
            on_stored=on_stored,
        )

    def set_aside(self, message: Message, past: Past, on_stored: OnStored) -> None:
        """Have ``message`` come again among the suspects."""
        self._produce(
            self._suspects,
            message.body,
            encode_key(message.key),
            partition=0,
            headers=copy_headers(message, past),
            on_stored=on_stored,
        )

    def move(self, record: Record, on_stored: OnStored) -> None:
        """Hand a due record of the delay topic to the group."""
        self._produce(
            self._retry,
            record.value(),
            record.key(),
            partition=0,
            headers=without_due(record),
            on_stored=on_stored,
        )

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
        self, topic: str, value: Any, key: Any, *, on_stored: OnStored, **how: Any
    ) -> None:
        if self._producer is None:
            self._producer = self._connect()
            # An idempotent producer that is not connected yet looks again after half a second.
            with contextlib.suppress(KafkaException):
                topic_partitions(self._producer, topic, _CONNECT_S)

        def report(error: KafkaError | None, _record: Record) -> None:
            on_stored(error)

        try:
            self._producer.produce(topic, value, key, on_delivery=report, **how)
        except BufferError:
            on_stored(KafkaError(KafkaError._QUEUE_FULL))
