"""A consumer in a process of its own, to be killed or frozen.

It receives, works for a while on each delivery, settles it, and records every event in a file
before it goes on: what a SIGKILL leaves there is what had happened.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import msgspec

from gearshift._observe.access import Access
from gearshift._observe.json_log import LogReader, LogWriter
from gearshift._observe.process import WorkerProcess, read_job
from gearshift.conformance.history import Event, History, Kind
from gearshift.conformance.recording import RecordingConsumer
from gearshift.errors import GearshiftError

__all__ = ["ConsumerProcess", "Job"]

_PREFETCH = 10


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a worker: work on each delivery of ``channel`` for ``work_s`` seconds, then
    settle it with ``action``, "ack" or "retry"; to die of the message with the id ``killer``."""

    access: Access
    channel: str
    group: str
    who: str
    work_s: float
    action: str
    events: str
    killer: str | None


class ConsumerProcess(WorkerProcess):
    """A running worker and what it has recorded."""

    def __init__(self, job: Job) -> None:
        self._events = LogReader(Path(job.events), Event)
        super().__init__(__name__, job, Path(job.events).with_suffix(".log"))

    def events(self) -> list[Event]:
        """The events that it has recorded so far."""
        return self._events.read()

    def deliveries(self) -> list[Event]:
        """The deliveries that it has recorded so far."""
        return [event for event in self.events() if event.kind is Kind.DELIVER]

    def close(self, timeout_s: float = 0.0) -> None:
        """See WorkerProcess."""
        super().close(timeout_s)
        self._events.close()


class _FileHistory(History):
    """A history that is in a file before the next thing happens."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = LogWriter(file)

    def add(self, event: Event) -> None:
        self._file.write(event)


def main() -> None:
    """Work until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    job = read_job(Job)
    history = _FileHistory(Path(job.events))
    with (
        job.access.open() as bus,
        RecordingConsumer(
            bus, job.channel, job.group, history, job.who, prefetch=_PREFETCH
        ) as consumer,
    ):
        while not stop.is_set():
            for delivery in consumer.receive(timeout_s=0.1):
                if delivery.id == job.killer:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(job.work_s)
                try:
                    getattr(consumer, job.action)(delivery)
                except GearshiftError:
                    continue  # recorded as failed; it goes to somebody else
