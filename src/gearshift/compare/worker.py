"""A worker of a trial: receives, records, handles, settles. On a thread or in a process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from gearshift._observe.access import Access
from gearshift._observe.process import read_job
from gearshift._observe.threads import working
from gearshift.bus import Bus
from gearshift.compare.event_log import Recorder
from gearshift.compare.handlers import Compared, ObservedDelivery, running
from gearshift.compare.sampling import watch_memory
from gearshift.compare.workload import Order
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import Start
from gearshift.errors import NotSupported
from gearshift.worker import dispatch
from gearshift.worker.event_loop import EventLoop

__all__ = ["GROUP", "Duties", "Job", "ObservedWorker", "Site", "Worker", "main"]

#: The group of a worker that is given no other.
GROUP = "workers"

_POLL_S = 0.1


class Duties(msgspec.Struct, frozen=True, kw_only=True):
    """The duties of one worker.

    ``handler`` is module:function, "" a handler that sleeps ``work_ms`` times the order's effort.
    With ``settle`` "first" it acks before it works. It fails every attempt at ``poison``, hangs
    in its handler at its delivery number ``stuck_at`` and goes back to the start after it has
    done ``seek_after`` messages.
    """

    name: str = ""
    channel: str = ""
    group: str = GROUP
    prefetch: int = 10
    work_ms: float = 0.0
    create_group: bool = False
    handler: str = ""
    settle: Literal["after", "first"] = "after"
    poison: int | None = None
    stuck_at: int | None = None
    seek_after: int | None = None


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The broker and the event log of a trial; times in it count from ``origin_ns``."""

    access: Access
    log: str
    origin_ns: int

    def recorder(self) -> Recorder:
        """A recorder of the trial's event log."""
        return Recorder(Path(self.log), self.origin_ns)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a process: a worker on a thread for each of ``duties``."""

    duties: tuple[Duties, ...]
    site: Site


class ObservedWorker:
    """A worker that records what it does; subclasses handle deliveries. One thread."""

    def __init__(self, recorder: Recorder, name: str, group: str = "") -> None:
        self._recorder = recorder
        self._name = name
        self._group = group
        self.loop = EventLoop()

    def handle(self, delivery: Delivery[Any], consumer: Consumer[Any]) -> None:
        """Work on one delivery and settle it."""
        raise NotImplementedError

    def step(self, consumer: Consumer[Any]) -> None:
        """Receive once, and handle what comes."""
        for delivery in consumer.receive(timeout_s=_POLL_S):
            self.handle(delivery, consumer)

    def work(self, consumer: Consumer[Any], is_over: Callable[[], bool]) -> None:
        """Record that it is ready, then step until ``is_over``; record its partitions."""
        consumer.ready()
        self.note("ready")
        owned: frozenset[int] = frozenset()
        while not is_over():
            if consumer.partitions != owned:
                owned = consumer.partitions
                self.note("assign", partitions=tuple(sorted(owned)))
            self.step(consumer)

    def note(self, kind: Any, **fields: Any) -> None:
        """Record an event of this worker."""
        self._recorder.event(kind, self._name, group=self._group, **fields)

    def noting(self, delivery: Delivery[Any], seq: int, key: str | None) -> Callable[..., None]:
        """``note`` for events of this delivery."""
        return partial(self.note, seq=seq, key=key, attempt=delivery.attempt)

    @staticmethod
    def given(delivery: Delivery[Any]) -> dict[str, Any]:
        """Fields of an event for a delivery: whether it came again, and its place in a log."""
        given: dict[str, Any] = {"redelivered": delivery.redelivered}
        if delivery.position is not None:
            given |= {
                "partition": delivery.position.partition,
                "offset": delivery.position.offset,
            }
        return given


class Worker(ObservedWorker):
    """A worker of a scenario."""

    def __init__(self, bus: Bus, duties: Duties, recorder: Recorder, access: Access) -> None:
        super().__init__(recorder, duties.name, duties.group)
        self._bus = bus
        self._duties = duties
        self._access = access
        self._handler: Compared | None = None
        self._deliveries = 0
        self._done = 0
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then drain and leave."""
        duties, self._stop = self._duties, stop
        self.note("start")
        with contextlib.ExitStack() as stack:
            stack.callback(self.loop.close)
            if duties.handler:
                given = running(duties.handler, self._access, Path(os.devnull), self.loop)
                self._handler = stack.enter_context(given)
            consumer = self._bus.consumer(
                duties.channel,
                group=duties.group,
                prefetch=duties.prefetch,
                create=duties.create_group or None,
                value_type=self._handler.call.value_type if self._handler else Any,
                serial_keys=True,
            )
            self.work(stack.enter_context(consumer), stop.is_set)
        self.note("stop")

    def step(self, consumer: Consumer[Any]) -> None:
        """Receive once; go back to the start if it is time to."""
        held = consumer.unsettled
        self._recorder.sample("held_messages", held, who=self._name, group=self._group)
        super().step(consumer)
        if self._done == self._duties.seek_after:
            self._done += 1  # once
            self._seek(consumer)

    def handle(self, delivery: Delivery[Any], consumer: Consumer[Any]) -> None:
        """See ObservedWorker."""
        self._deliveries += 1
        order = msgspec.json.decode(delivery.body or b"", type=Order)
        note = self.noting(delivery, order.order_id, order.customer)
        note("deliver", **self.given(delivery))
        is_last = self._deliveries == self._duties.stuck_at
        hang = partial(self._hang, note, consumer) if is_last else None
        observed = ObservedDelivery(delivery, note, hang)
        if self._duties.settle == "first":
            observed.ack()
        ending = self._run(observed, order)
        if ending.failed:
            note("failed", what=type(ending.error).__name__)
        elif ending.action == "ack":
            if is_last:
                self._hang(note)
            note("done")
            self._done += 1
        if delivery.outcome is None:
            ending.settle(observed)

    def _run(self, observed: ObservedDelivery, order: Order) -> dispatch.Ending:
        is_poison = order.order_id == self._duties.poison
        if self._handler is not None:
            return self._handler.run(observed, _poisoned if is_poison else None)
        sleep = partial(time.sleep, self._duties.work_ms * order.effort / 1000)
        return dispatch.run(_poisoned if is_poison else sleep, self.loop.wait)

    def _seek(self, consumer: Consumer[Any]) -> None:
        consumer.flush()
        try:
            consumer.seek(Start())
        except NotSupported as error:
            self.note("seek", what=f"refused: {error.message}")
        else:
            self.note("seek", what="earliest")

    def _hang(self, note: Callable[..., None], acked: Consumer[Any] | None = None) -> None:
        """Wait to be killed, once the client has been told of what was ``acked``.

        Told to stop instead, it leaves: the broker would keep a place for one that just ends.
        """
        if acked is not None:
            acked.flush()
        note("stuck")
        self._stop.wait()
        raise SystemExit


def _poisoned() -> None:
    raise ValueError("poison")


def main() -> None:
    """Work as a process until SIGTERM, which drains; SIGKILL is what some are made for."""
    job = read_job(Job)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    recorder, access = job.site.recorder(), job.site.access
    name = job.duties[0].name
    threading.Thread(target=watch_memory, args=(name, recorder, stop), daemon=True).start()

    def work(duties: Duties, told: threading.Event) -> None:
        try:
            Worker(bus, duties, recorder, access).run(told)
        finally:  # one that fails takes the others along
            stop.set()

    with access.open() as bus, working(*(partial(work, duties) for duties in job.duties)):
        stop.wait()
