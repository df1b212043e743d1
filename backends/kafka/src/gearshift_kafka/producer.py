"""Storing batches: produced on the caller's thread, which serves reports too if it is alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Record

from gearshift.driver import OnOutcomes, Outcome, ProducerDriver, Stored
from gearshift.driver.handover import Handover
from gearshift.driver.helpers import OpenCount
from gearshift.message import Message, Position
from gearshift_kafka.errors import stored
from gearshift_kafka.signals import Heard
from gearshift_kafka.times import RecordTimes
from gearshift_kafka.wire import encode_headers, encode_key

__all__ = ["Producer"]

log = logging.getLogger("gearshift.kafka")

_SERVE_S = 0.1

#: Up to so many messages on their way, none waits for company: nobody else would come in time. Nor
#: do more of them, if a thread waits for each.
_FEW = 4

#: How long the client is kept from gathering before it is seen how many there are now.
_HURRY_S = 0.01

#: How long a purge may take to report. It answers from memory, in milliseconds.
_PURGE_S = 2.0


class _Batch:
    """A submitted batch: what was reported and not yet told to core, and what is still open."""

    __slots__ = ("_on_outcomes", "_report", "is_awaited", "left", "open", "reports")

    def __init__(
        self,
        size: int,
        on_outcomes: OnOutcomes,
        report: Callable[[_Batch], None],
        *,
        is_awaited: bool,
    ) -> None:
        self.open = bytearray(b"\1" * size)
        self.left = size
        self.is_awaited = is_awaited  # its sender waits
        self.reports: list[Outcome] = []
        self._on_outcomes = on_outcomes
        self._report = report

    def on_report(self, number: int, error: KafkaError | None, record: Record) -> None:
        """One delivery report. Runs inside poll(): it must not call the client."""
        if error is None:
            position = Position(record.partition(), record.offset())  # type: ignore[arg-type]
            self.reports.append(Outcome(number, Stored.YES, position))
        else:
            self.reports.append(Outcome(number, stored(error), None, KafkaException(error)))
        self._report(self)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Give outcomes to core in one call."""
        for outcome in outcomes:
            self.open[outcome.number] = 0
        try:
            self._on_outcomes(outcomes)
        except Exception:  # the thread that serves every batch must live
            log.exception("a callback of core failed")


class Producer(ProducerDriver):
    """One producer for one topic; see ProducerDriver.

    Brokers that come and go are the client's business: a report comes when it has given up.
    ``_lock`` guards the batches and how much of each is open. Reports are served by the thread that
    drives (see ``gearshift.driver.handover``): this driver's own, or a sender that is alone.
    """

    def __init__(
        self, producer: confluent_kafka.Producer, topic: str, times: RecordTimes, heard: Heard
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._times = times
        self._heard = heard
        self._lock = threading.Lock()
        self._batches: dict[int, _Batch] = {}  # those with open messages, by identity
        self._open = OpenCount()
        self._unawaited = 0  # open messages whose senders do not wait
        #: A sender was interrupted, perhaps in a report: then ``_open`` never falls to 0, and as
        #: there is nothing to flush the own thread would spin.
        self._may_lack_reports = False
        self._partly: list[_Batch] = []  # with reports to tell; only the driving thread uses it
        self._stop = threading.Event()
        self._handover = Handover(lambda: bool(self._open) or self._stop.is_set())
        self._closed = False
        # A daemon: a program that forgets to close must be able to end all the same.
        self._server = threading.Thread(
            target=self._serve, name=f"gearshift-kafka-{topic}", daemon=True
        )
        self._server.start()

    @property
    def heard_at(self) -> float:
        return self._heard.at

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        self._produce(messages, on_outcomes, is_awaited=False)
        self._handover.recall()

    def submit_served(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        self._produce(messages, on_outcomes, is_awaited=True)

    def serve(self, done: Callable[[], bool], timeout_s: float) -> None:
        drives = False
        try:
            drives = self._handover.take()
            if drives:
                self._flush_until(done, time.monotonic() + timeout_s)
        except BaseException:
            self._may_lack_reports = True
            raise
        finally:
            if drives:
                self._handover.give_back(broken=False)
            else:
                self._handover.recall()

    def _flush_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Poll without linger, unless others have come who need the own thread."""
        while not (done() or self._stop.is_set() or int(self._open) > _FEW):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            self._producer.flush(min(left_s, _HURRY_S))
            self._tell_parts()

    def _produce(
        self, messages: Sequence[Message], on_outcomes: OnOutcomes, *, is_awaited: bool
    ) -> None:
        if not messages:
            return
        batch = _Batch(len(messages), on_outcomes, self._collect, is_awaited=is_awaited)
        with self._lock:
            self._batches[id(batch)] = batch
            self._unawaited += 0 if is_awaited else len(messages)
        self._open.add(len(messages))
        refused: list[Outcome] = []
        produce, topic, report = self._producer.produce, self._topic, batch.on_report
        earliest, latest = self._times.limits(time.time())
        for number, message in enumerate(messages):
            time_ms = message.timestamp_ms
            is_own = time_ms is None or earliest <= time_ms <= latest
            try:
                produce(
                    topic,
                    message.body,
                    encode_key(message.key),
                    on_delivery=partial(report, number),
                    timestamp=(time_ms or 0) if is_own else 0,  # 0 is now
                    headers=encode_headers(message, with_time=not is_own),
                )
            except Exception as error:  # whatever it is, nothing was queued
                refused.append(Outcome(number, Stored.NO, None, error))
        if refused:
            self._tell(batch, refused)

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._open.wait(timeout_s):
            # The client's own close would wait for minutes; a purge reports what is left at once.
            self._producer.purge()
            self._open.wait(_PURGE_S)
        self._stop.set()
        self._handover.recall()
        self._server.join()
        self._give_up()

    def _serve(self) -> None:
        is_slow = False  # what was to be stored at once is not
        while not self._stop.is_set():
            if not self._open:
                self._producer.poll(0)  # serves error_cb
                self._handover.rest()
            elif self._unawaited > _FEW or is_slow or self._may_lack_reports:
                self._producer.poll(_SERVE_S)
                is_slow = False
            else:
                is_slow = self._producer.flush(_HURRY_S) > 0  # polls, and nothing lingers
            self._tell_parts()
        self._producer.poll(0)
        self._tell_parts()

    def _collect(self, batch: _Batch) -> None:
        """A report of ``batch`` is in: tell core at once if it was the last, else with others."""
        if len(batch.reports) == batch.left:
            self._tell_reports(batch)
        elif len(batch.reports) == 1:
            self._partly.append(batch)

    def _tell_parts(self) -> None:
        partly = self._partly[:]
        self._partly.clear()
        for batch in partly:
            self._tell_reports(batch)
        if partly:
            time.sleep(0)  # let the threads that were just answered run

    def _tell_reports(self, batch: _Batch) -> None:
        outcomes, batch.reports = batch.reports, []
        if outcomes:
            self._tell(batch, outcomes)

    def _tell(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        batch.tell(outcomes)
        with self._lock:
            batch.left -= len(outcomes)
            self._unawaited -= 0 if batch.is_awaited else len(outcomes)
            if not batch.left:
                self._batches.pop(id(batch), None)
        self._open.remove(len(outcomes))

    def _give_up(self) -> None:
        """The client has no more reports to give: what is open even so is not known."""
        for batch in list(self._batches.values()):
            gone = KafkaException(KafkaError(KafkaError._PURGE_INFLIGHT))
            left = [number for number, is_open in enumerate(batch.open) if is_open]
            self._tell(batch, [Outcome(n, Stored.UNKNOWN, None, gone) for n in left])
