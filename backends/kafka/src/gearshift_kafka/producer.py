"""Storing batches: produced on the caller's thread, reports served by one thread of ours."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from gearshift.driver import OnOutcomes, Outcome, Stored
from gearshift.message import Message, Position
from gearshift_kafka.wire import to_headers

__all__ = ["KafkaProducer"]

log = logging.getLogger("gearshift.kafka")

_SERVE_S = 0.1

#: A message with one of these never left the client.
_NEVER_SENT = frozenset(
    (
        KafkaError._PURGE_QUEUE,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError._INVALID_ARG,
    )
)


class _Batch:
    """Collects a batch's reports while the client serves them; see ``deliver``."""

    __slots__ = ("dirty", "on_outcomes", "outcomes")

    def __init__(self, on_outcomes: OnOutcomes, dirty: list[_Batch]) -> None:
        self.on_outcomes = on_outcomes
        self.outcomes: list[Outcome] = []
        self.dirty = dirty

    def on_report(self, number: int, error: KafkaError | None, record: Any) -> None:
        """One delivery report. Runs inside poll(): it must not call the client."""
        if not self.outcomes:
            self.dirty.append(self)
        if error is None:
            position = Position(record.partition(), record.offset())
            self.outcomes.append(Outcome(number, Stored.YES, position))
        else:
            stored = Stored.NO if error.code() in _NEVER_SENT else Stored.UNKNOWN
            self.outcomes.append(Outcome(number, stored, None, KafkaException(error)))

    def deliver(self) -> None:
        """Give everything collected to core in one call."""
        outcomes, self.outcomes = self.outcomes, []
        self.on_outcomes(outcomes)


class KafkaProducer:
    """One producer for one topic; see ProducerDriver.

    Brokers that come and go are the client's business: a report comes when it has given up.
    """

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._open = 0  # messages without a report
        self._lock = threading.Lock()
        self._all_reported = threading.Condition(self._lock)
        self._dirty: list[_Batch] = []
        self._stop = threading.Event()
        self._closed = False
        self._server = threading.Thread(
            target=self._serve, name=f"gearshift-kafka-{topic}", daemon=True
        )
        self._server.start()

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        batch = _Batch(on_outcomes, self._dirty)
        with self._lock:
            self._open += len(messages)
        refused: list[Outcome] = []
        produce, topic, report = self._producer.produce, self._topic, batch.on_report
        for number, message in enumerate(messages):
            try:
                produce(
                    topic,
                    message.body,
                    None if message.key is None else message.key.encode("utf-8", "surrogateescape"),
                    on_delivery=partial(report, number),
                    timestamp=message.timestamp_ms or 0,
                    headers=to_headers(message),
                )
            except (BufferError, KafkaException) as error:
                refused.append(Outcome(number, Stored.NO, None, error))
        if refused:
            on_outcomes(refused)
            self._reported(len(refused))

    def blocked(self) -> str | None:
        return None  # Kafka does not announce pressure; the window fills and callers wait

    def flush(self, timeout_s: float) -> bool:
        with self._lock:
            return self._all_reported.wait_for(lambda: self._open == 0, timeout_s)

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.flush(timeout_s):
            # The client's own close would wait for minutes; a purge reports what is left at once.
            self._producer.purge()
            self.flush(5.0)
        self._stop.set()
        self._server.join()
        if self._open:
            log.warning("topic %r: %d messages ended without a report", self._topic, self._open)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(_SERVE_S)
            if not self._dirty:
                continue
            batches = self._dirty[:]
            self._dirty.clear()
            for batch in batches:
                count = len(batch.outcomes)
                batch.deliver()
                self._reported(count)
            time.sleep(0)  # let the threads that were just answered run

    def _reported(self, count: int) -> None:
        with self._lock:
            self._open -= count
            if not self._open:
                self._all_reported.notify_all()
