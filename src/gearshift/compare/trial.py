"""A trial under way: a channel of its own, its producer, workers and event log; then gone."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import msgspec

from gearshift._observe.threads import working
from gearshift._observe.waiting import remaining, wait_until
from gearshift.capabilities import Durability
from gearshift.compare import measures
from gearshift.compare.columns import PARTITIONS, Target
from gearshift.compare.conduct import Conduct
from gearshift.compare.event_log import EventLog, Recorder
from gearshift.compare.ledger import Event, Sample, TrialRecord
from gearshift.compare.notebook import apart
from gearshift.compare.sampling import record_status, watch_memory, watch_status
from gearshift.compare.sending import RecordedSender
from gearshift.compare.worker import GROUP, Duties, Job, Site, Worker
from gearshift.compare.workers import Workers
from gearshift.compare.workload import Order
from gearshift.driver import GroupStatus
from gearshift.errors import GearshiftError, NotSupported
from gearshift.message import Message, Semantics, message_id
from gearshift.operations.cleanup import delete_channels, finish

__all__ = ["Trial"]

log = logging.getLogger("gearshift.compare")

TIMEOUT_S = 90.0  # of each wait; a busy machine starts its workers slowly
LETTERS_TIMEOUT_S = 30.0
_LOOK_S = 0.5
_QUIET_S = 1.5


class Trial:
    """One trial, made by ``Trial.set_up``. One thread."""

    def __init__(
        self,
        target: Target,
        folder: Path,
        settings: Mapping[str, Any],
        duties: Duties,
        keyed: bool,
        partitions: int | None,
    ) -> None:
        self.channel = f"compare_{message_id()[-14:]}"
        wanted = {"semantics": target.semantics.value, **settings}
        if target.semantics is Semantics.STREAM and partitions is not None:
            wanted["partitions"] = partitions
        self.semantics = target.semantics
        self.partitions = partitions
        self.error: str | None = None  #: what ended it early
        self.events: tuple[Event, ...] = ()  #: everything that happened, once it is over
        self.samples: tuple[Sample, ...] = ()
        self._duties = duties
        self._keyed = keyed
        path = folder / f"{self.channel}.events"
        access = target.access({self.channel: wanted})
        self.site = Site(access=access, log=str(path), origin_ns=time.monotonic_ns())
        self.bus = access.open()
        self.log = EventLog(path)
        self.recorder: Recorder = self.site.recorder()
        self.workers = Workers(folder, self.channel, self.bus.config.masked)
        self._conduct = Conduct() if self._duties.handler else None

    @staticmethod
    @contextlib.contextmanager
    def set_up(
        target: Target,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        duties: Duties | None = None,
        keyed: bool = True,
        partitions: int | None = PARTITIONS,
    ) -> Iterator[Trial]:
        """A fresh channel with ``settings``; stopped, deleted, closed at the end in any case.

        What cannot be deleted, because the broker has gone, is logged as a warning. ``duties`` are
        what its workers have in common; ``keyed`` sends orders with their keys. ``partitions`` is
        for a stream; None is what the backend takes.
        """
        trial = Trial(target, folder, settings, duties or Duties(), keyed, partitions)
        with trial.bus, trial.log:
            try:
                trial.bus.declare(trial.channel)
                yield trial
            finally:
                finish(trial._clear)
                trial.recorder.close()
                trial.events, trial.samples = trial.log.events(), trial.log.samples()

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """An error of ours in the block, but NotSupported, ends the trial with ``error``."""
        try:
            yield
        except NotSupported:
            raise
        except GearshiftError as failure:
            self.error = self.bus.config.masked(str(failure))

    def record(
        self, repetition: int, variant: str, settings: Mapping[str, int | float | str]
    ) -> TrialRecord:
        """The record of the trial, once it is over."""
        return TrialRecord(
            repetition=repetition,
            channel=self.channel,
            variant=variant,
            settings=dict(settings),
            error=self.error,
            events=self.events,
            samples=self.samples,
        )

    # ── sending ──

    def send(self, orders: Sequence[Order], *, per_s: float | None = None) -> None:
        """Send ``orders``, each confirmed on its own; all outcomes are there on return."""
        started = time.monotonic()
        with self.bus.producer(self.channel) as producer:
            sender = RecordedSender(producer, self.recorder, self.bus.config.masked)
            for number, order in enumerate(orders):
                if per_s is not None:
                    time.sleep(max(0.0, started + number / per_s - time.monotonic()))
                key = order.customer if self._keyed else None
                message = producer.message(msgspec.to_builtins(order), key=key)
                sender.submit(message, order.order_id, order.customer)

    def send_copies(self, messages: Sequence[tuple[str | None, Message]]) -> None:
        """Send messages as they are, each with the key to record; outcomes are there on return."""
        with self.bus.producer(self.channel) as producer:
            sender = RecordedSender(producer, self.recorder, self.bus.config.masked)
            for seq, (key, message) in enumerate(messages):
                sender.submit(message, seq, key)

    # ── workers ──

    def thread(self, name: str, **more: Any) -> None:
        """Start a worker on a thread. ``more`` are duties of its own."""
        self._threads(self._duties_of(name, more))

    def threads(self, members: int) -> None:
        """Start so many workers on threads and wait until they are ready."""
        self._threads(*(self._duties_of(f"worker-{n + 1}", {}) for n in range(members)))
        self.wait_ready(members)

    def _threads(self, *duties: Duties) -> None:
        """A user's handler gets a process: it may end that, or never come back."""
        if self._duties.handler:
            self._process(*duties)
            return
        for one in duties:
            worker = Worker(self.bus, one, self.recorder, self.site.access)
            self.workers.thread(one.name, worker.run)

    def process(self, name: str, **more: Any) -> None:
        """Start a worker as a process, with a connection of its own.

        Raises NotSupported for a broker that lives in this process.
        """
        self._process(self._duties_of(name, more))

    def _process(self, *duties: Duties) -> None:
        if self.bus.capabilities(self.channel).durability is Durability.NOTHING:
            raise NotSupported("its messages live in one process, and no other can work on them")
        if self._conduct is not None:
            self._conduct.poison = duties[0].poison
        job = Job(duties=duties, site=self.site)
        self.workers.process(duties[0].name, "gearshift.compare.worker", job)

    def _duties_of(self, name: str, more: Mapping[str, Any]) -> Duties:
        return msgspec.structs.replace(self._duties, name=name, channel=self.channel, **more)

    def kill(self, name: str) -> None:
        """SIGKILL a worker process."""
        self.workers.kill(name, lambda: self.recorder.event("fault", name, what="SIGKILL"))

    # ── waiting ──

    def wait(
        self, condition: Callable[[list[Event]], bool], what: str, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Block until ``condition`` holds for the events so far, in the order of writing.

        Raises DeadlineExceeded naming ``what``, WorkerFailed if a worker ended on its own, and
        HandlerUnfit.
        """

        def holds() -> bool:
            events = self.log.written()
            if condition(events):
                return True
            if self._conduct is not None:
                self._conduct.check(events, self.recorder.now_ms())
            return False

        wait_until(holds, what, timeout_s, self.workers.check)

    def wait_ready(self, members: int, group: str | None = None) -> None:
        """Until so many workers, of ``group`` if given, are ready and share the partitions."""

        def are_ready(events: list[Event]) -> bool:
            mine = events if group is None else measures.of_group(events, group)
            return measures.count(mine, "ready") >= members and (
                self.semantics is Semantics.QUEUE
                or measures.is_balanced(mine, members, self.partitions)
            )

        self.wait(are_ready, f"{group or 'workers'} ready")

    def wait_done(self, orders: Sequence[Order], group: str = GROUP) -> None:
        """Until ``group`` has done every one of ``orders``."""
        wanted = {order.order_id for order in orders}
        self.wait(lambda events: wanted <= _done(events, group), f"{len(wanted)} messages done")

    def wait_done_or_drained(self, orders: Sequence[Order], group: str = GROUP) -> None:
        """As ``wait_done``, or until the broker has nothing more and nobody has anything in hand.

        What is missing then is lost. Where the broker cannot tell, only time ends the wait.
        """
        wanted = {order.order_id for order in orders}
        seen, quiet_since = -1, time.monotonic()

        def is_over(events: list[Event]) -> bool:
            nonlocal seen, quiet_since
            if wanted <= _done(events, group):
                return True
            if len(events) != seen:
                seen, quiet_since = len(events), time.monotonic()
            if time.monotonic() - quiet_since < _QUIET_S:
                return False
            quiet_since = time.monotonic()
            return remaining(self.status(group)) == 0

        self.wait(is_over, f"{len(wanted)} messages done or gone")

    def wait_acks_heard(self, group: str = GROUP) -> None:
        """Until the broker has every ack in the event log; at once where it cannot tell.

        Some clients send acks when they like (Kafka's does): killed before, they have not acked.
        """

        def is_heard(events: list[Event]) -> bool:
            acked = _acked(events, group)
            status = self.status(group)
            if status is None:
                return False
            if self.semantics is Semantics.QUEUE and None in (status.ready, status.in_flight):
                return True
            left = len(measures.confirmed(events) - acked)
            # An ack that was recorded meanwhile may or may not be in the broker's number.
            is_current = acked == _acked(self.log.written(), group)
            return remaining(status) == left and is_current

        if self.bus.capabilities(self.channel).depth:
            self.wait(is_heard, "the acks at the broker")

    # ── asking the broker ──

    def read_dead_letters(self) -> None:
        """Record what lies in the dead-letter channel, until all that was rejected has come.

        What is missing after ``LETTERS_TIMEOUT_S`` is not there.
        """
        apart(self._read_dead_letters)

    def _read_dead_letters(self) -> None:
        missing = measures.settled(self.log.written(), "reject")
        deadline = time.monotonic() + LETTERS_TIMEOUT_S
        with self.bus.consumer(f"{self.channel}.dead") as dead:
            dead.ready()
            while missing and time.monotonic() < deadline:
                for delivery in dead.receive(timeout_s=_LOOK_S):
                    order = msgspec.json.decode(delivery.body or b"", type=Order)
                    self.recorder.event(
                        "dead",
                        "reader",
                        seq=order.order_id,
                        key=order.customer,
                        what=str(delivery.headers.get("dead-letter-reason", "")),
                    )
                    delivery.ack()
                    missing.discard(order.order_id)

    def status(self, group: str) -> GroupStatus | None:
        """The group as the broker has it, also recorded as samples."""
        return record_status(self.bus, self.channel, group, self.recorder)

    @contextlib.contextmanager
    def sampled(self, group: str) -> Iterator[None]:
        """Sample the group's state and this process' memory while the block runs."""
        with working(
            lambda stop: watch_status(self.bus, self.channel, group, self.recorder, stop),
            lambda stop: watch_memory("producer", self.recorder, stop),
        ):
            yield

    # ── inside ──

    def _clear(self) -> None:
        """Stop everybody and remove the channel."""
        self.workers.stop()
        for problem in delete_channels(self.bus, self.channel):
            log.warning("%s", self.bus.config.masked(problem))


def _done(events: Sequence[Event], group: str) -> Set[int]:
    return measures.done(measures.of_group(events, group)).keys()


def _acked(events: Sequence[Event], group: str) -> set[int]:
    return measures.settled(measures.of_group(events, group), "ack")
