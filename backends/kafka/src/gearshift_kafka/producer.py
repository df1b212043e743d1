"""Storing batches: produced on the caller's thread, reports served by one thread of ours."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from gearshift.driver import OnOutcomes, Outcome, Stored
from gearshift.message import Message, Position
from gearshift_kafka.errors import stored
from gearshift_kafka.wire import encode_headers, encode_key

__all__ = ["KafkaProducer"]

log = logging.getLogger("gearshift.kafka")

_SERVE_S = 0.1

#: How long a purge may take to report. It answers from memory, in milliseconds.
_PURGE_S = 2.0


class _Batch:
    """A submitted batch: what was reported and not yet told to core, and what is still open."""

    __slots__ = ("_fresh", "_on_outcomes", "open", "reports")

    def __init__(self, size: int, on_outcomes: OnOutcomes, fresh: list[_Batch]) -> None:
        self.open = bytearray(b"\1" * size)
        self.reports: list[Outcome] = []
        self._on_outcomes = on_outcomes
        self._fresh = fresh

    def on_report(self, number: int, error: KafkaError | None, record: Record) -> None:
        """One delivery report. Runs inside poll(): it must not call the client."""
        if not self.reports:
            self._fresh.append(self)
        if error is None:
            position = Position(record.partition(), record.offset())  # type: ignore[arg-type]
            self.reports.append(Outcome(number, Stored.YES, position))
        else:
            self.reports.append(Outcome(number, stored(error), None, KafkaException(error)))

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Give outcomes to core in one call."""
        for outcome in outcomes:
            self.open[outcome.number] = 0
        try:
            self._on_outcomes(outcomes)
        except Exception:  # the thread that serves every batch must live
            log.exception("a callback of core failed")


class KafkaProducer:
    """One producer for one topic; see ProducerDriver.

    Brokers that come and go are the client's business: a report comes when it has given up.
    """

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._lock = threading.Lock()
        self._all_reported = threading.Condition(self._lock)
        self._batches: dict[int, _Batch] = {}  # those with open messages, by identity
        self._open = 0
        self._fresh: list[_Batch] = []  # with reports to tell; only the serving thread uses it
        self._stop = threading.Event()
        self._closed = False
        # A daemon: a program that forgets to close must be able to end all the same.
        self._server = threading.Thread(
            target=self._serve, name=f"gearshift-kafka-{topic}", daemon=True
        )
        self._server.start()

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        if not messages:
            return
        batch = _Batch(len(messages), on_outcomes, self._fresh)
        with self._lock:
            self._batches[id(batch)] = batch
            self._open += len(messages)
        refused: list[Outcome] = []
        produce, topic, report = self._producer.produce, self._topic, batch.on_report
        for number, message in enumerate(messages):
            try:
                produce(
                    topic,
                    message.body,
                    encode_key(message.key),
                    on_delivery=partial(report, number),
                    timestamp=message.timestamp_ms or 0,
                    headers=encode_headers(message),
                )
            except Exception as error:  # whatever it is, nothing was queued
                refused.append(Outcome(number, Stored.NO, None, error))
        if refused:
            self._report(batch, refused)

    def blocked(self) -> str | None:
        return None  # Kafka does not announce pressure; the window fills and callers wait

    def flush(self, timeout_s: float) -> bool:
        with self._lock:
            return self._all_reported.wait_for(lambda: not self._open, timeout_s)

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.flush(timeout_s):
            # The client's own close would wait for minutes; a purge reports what is left at once.
            self._producer.purge()
            self.flush(_PURGE_S)
        self._stop.set()
        self._server.join()
        self._give_up()

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(_SERVE_S)
            self._tell()
        self._tell()

    def _tell(self) -> None:
        fresh = self._fresh[:]
        self._fresh.clear()
        for batch in fresh:
            outcomes, batch.reports = batch.reports, []
            self._report(batch, outcomes)
        if fresh:
            time.sleep(0)  # let the threads that were just answered run

    def _report(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        batch.tell(outcomes)
        with self._lock:
            self._open -= len(outcomes)
            if 1 not in batch.open:
                self._batches.pop(id(batch), None)
            if not self._open:
                self._all_reported.notify_all()

    def _give_up(self) -> None:
        """The client has no more reports to give: what is open even so is not known."""
        for batch in list(self._batches.values()):
            gone = KafkaException(KafkaError(KafkaError._PURGE_INFLIGHT))
            left = [number for number, is_open in enumerate(batch.open) if is_open]
            self._report(batch, [Outcome(n, Stored.UNKNOWN, None, gone) for n in left])
