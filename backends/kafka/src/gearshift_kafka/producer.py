"""Storing batches: produced on the caller's thread, which serves reports too if it is alone."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import confluent_kafka
import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Record

from gearshift.driver import OnOutcomes, Outcome, ProducerDriver, Stored
from gearshift.driver.handover import Handover
from gearshift.driver.helpers import OpenCount
from gearshift.message import Message, Position
from gearshift_kafka.errors import stored
from gearshift_kafka.signals import Heard
from gearshift_kafka.timestamps import RecordTimes
from gearshift_kafka.wire import encode_headers

__all__ = ["Producer"]

log = logging.getLogger("gearshift.kafka")

_SERVE_S = 0.1

#: The outcome of nearly all, which costs something to look up each time.
_YES = Stored.YES

_ANY_PARTITION = -1

#: Up to so many messages on their way, none waits for company: nobody else would come in time. Nor
#: do more of them, if a thread waits for each, or once a thread waits for all that it has sent.
_FEW = 4

#: How long the client is kept from gathering at a time; reports that are in wait for the next.
_HURRY_S = 0.001

#: So often in a row with no report, and then one is waited for without hurry.
_HURRIES = 20

#: How long a purge may take to report. It answers from memory, in milliseconds.
_PURGE_S = 2.0


class _Batch:
    """A submitted batch: what was reported and not yet told to core, and what is still open."""

    __slots__ = ("is_awaited", "on_outcomes", "open", "reports")

    def __init__(self, size: int, on_outcomes: OnOutcomes, *, is_awaited: bool) -> None:
        self.open = bytearray(b"\1" * size)
        self.is_awaited = is_awaited  # its sender waits
        self.reports: list[Outcome] = []
        self.on_outcomes = on_outcomes


class _OnDelivery(msgspec.Struct, frozen=True, gc=False):
    """What the client calls with the report of one message; thousands are on their way."""

    batch: _Batch
    number: int
    reported: list[_Batch]  # the driver's

    def __call__(self, error: KafkaError | None, record: Record) -> None:
        """Runs inside poll(): it must not call the client."""
        reports = self.batch.reports
        if not reports:
            self.reported.append(self.batch)
        if error is None:
            position = Position(record.partition(), record.offset())  # type: ignore[arg-type]
            reports.append(Outcome(self.number, _YES, position))
        else:
            reports.append(Outcome(self.number, stored(error), None, KafkaException(error)))


class Producer(ProducerDriver):
    """One producer for one topic; see ProducerDriver.

    Brokers that come and go are the client's business: a report comes when it has given up.
    Reports are served by the thread that drives (see ``gearshift.driver.handover``): this driver's
    own, or a sender that is alone. Core is told of them once the client has returned: a
    sender that is answered in between takes the interpreter from the reports that follow.
    """

    def __init__(
        self, producer: confluent_kafka.Producer, topic: str, times: RecordTimes, heard: Heard
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._times = times
        self._heard = heard
        self._batches: dict[_Batch, None] = {}  # those with open messages
        self._open = OpenCount()
        self._unawaited = OpenCount()  # those whose senders do not wait
        #: By senders that wait, and send no more meanwhile: whether what they wait for has come.
        self._waiting: deque[Callable[[], bool]] = deque()
        self._hurried = 0  # in a row, with no report; the driving thread's
        #: A sender was interrupted, perhaps in a report: then ``_open`` never falls to 0, and as
        #: there is nothing to flush the own thread would spin.
        self._may_lack_reports = False
        self._reported: list[_Batch] = []  # there is something to tell; the driving thread's
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
            if not done():
                self._waiting.append(done)
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
            self._hurry(min(left_s, _SERVE_S))

    def _hurry(self, timeout_s: float) -> None:
        """Have what is on its way sent without linger, and tell what is reported by then."""
        is_silent = self._producer.flush(_HURRY_S) and not self._reported
        self._hurried = self._hurried + 1 if is_silent else 0
        if self._hurried > _HURRIES:
            self._producer.poll(timeout_s)
        self._tell_reports()

    def _produce(
        self, messages: Sequence[Message], on_outcomes: OnOutcomes, *, is_awaited: bool
    ) -> None:
        if not messages:
            return
        batch = _Batch(len(messages), on_outcomes, is_awaited=is_awaited)
        self._batches[batch] = None
        if not is_awaited:
            self._unawaited.add(len(messages))
        self._open.add(len(messages))
        refused: list[Outcome] = []
        produce, topic, reported = self._producer.produce, self._topic, self._reported
        earliest, latest = self._times.limits(time.time())
        for number, message in enumerate(messages):
            time_ms = message.timestamp_ms
            is_own = time_ms is None or earliest <= time_ms <= latest
            try:
                produce(  # by position: the client looks for each name in turn
                    topic,
                    message.body,
                    message.key,
                    _ANY_PARTITION,
                    _OnDelivery(batch, number, reported),
                    None,  # another name of the one before
                    (time_ms or 0) if is_own else 0,  # 0 is now
                    encode_headers(message, with_time=not is_own),
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
        while not self._stop.is_set():
            while self._waiting and self._waiting[0]():
                self._waiting.popleft()
            if not self._open:
                self._producer.poll(0)  # serves error_cb
                self._handover.rest()
            elif self._may_lack_reports or (int(self._unawaited) > _FEW and not self._waiting):
                self._producer.poll(_SERVE_S)
                self._tell_reports()
            else:
                self._hurry(_SERVE_S)
        self._producer.poll(0)
        self._tell_reports()

    def _tell_reports(self) -> None:
        while self._reported:
            batch = self._reported.pop(0)
            outcomes, batch.reports = batch.reports, []
            self._tell(batch, outcomes)

    def _tell(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        """Give outcomes to core in one call."""
        for outcome in outcomes:
            batch.open[outcome.number] = 0
        try:
            batch.on_outcomes(outcomes)
        except Exception:  # the thread that serves every batch must live
            log.exception("a callback of core failed")
        if 1 not in batch.open:
            self._batches.pop(batch, None)
        if not batch.is_awaited:
            self._unawaited.remove(len(outcomes))
        self._open.remove(len(outcomes))

    def _give_up(self) -> None:
        """The client has no more reports to give: what is open even so is not known."""
        for batch in list(self._batches):
            gone = KafkaException(KafkaError(KafkaError._PURGE_INFLIGHT))
            left = [number for number, is_open in enumerate(batch.open) if is_open]
            self._tell(batch, [Outcome(n, Stored.UNKNOWN, None, gone) for n in left])
