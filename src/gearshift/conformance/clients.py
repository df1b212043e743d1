"""Fresh channels, recording clients and workers of a behaviour; gone when it is over."""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from gearshift._observe.access import Access
from gearshift.bus import Bus
from gearshift.capabilities import Capabilities
from gearshift.conformance.harness import Harness
from gearshift.conformance.history import History, Kind
from gearshift.conformance.recording import RecordingConsumer, RecordingProducer
from gearshift.conformance.worker import ConsumerProcess, Job
from gearshift.errors import GearshiftError
from gearshift.message import Semantics
from gearshift.operations.cleanup import delete_channels, finish

__all__ = ["Clients"]

log = logging.getLogger("gearshift.conformance")

#: Retries in the kit come back this soon unless a behaviour says otherwise. Seconds.
RETRY_DELAY_S = 0.02


class Clients:
    """Channels and clients of one run. ``close`` lets go of every one that it made."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.history = History()
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)
        self._channels: dict[str, dict[str, Any]] = {}
        self._buses: list[Bus] = []
        self._workers: list[ConsumerProcess] = []
        self._folder = tempfile.TemporaryDirectory(prefix="gearshift-kit-")
        self.made: list[RecordingConsumer | RecordingProducer] = []

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities that the backend declares."""
        return self.harness.capabilities

    @property
    def is_stream(self) -> bool:
        """True for stream semantics."""
        return self.harness.semantics is Semantics.STREAM

    @property
    def patience_s(self) -> float:
        """Seconds to wait for anything before it counts as missing."""
        return self.harness.patience_s

    def fresh(self, what: str) -> str:
        """A name that nobody has used."""
        return f"kit.{self._run}.{what}{next(self._numbers)}"

    def channel(self, *, groups: tuple[str, ...] = ("g",), **settings: object) -> str:
        """A fresh, declared channel with these groups. ``settings`` are those of a channel."""
        name = self.fresh("c")
        self.configure(name, groups=groups, **settings)
        self.connect().declare(name, create=True, timeout_s=self.patience_s)
        return name

    def configure(self, name: str, *, groups: tuple[str, ...] = ("g",), **settings: object) -> None:
        """Have every bus that is opened from now on know this channel; declare nothing."""
        known: dict[str, object] = {
            "semantics": str(self.harness.semantics),
            "retry_delay_s": RETRY_DELAY_S,
            "retry_max_delay_s": 1.0,
        }
        if not self.is_stream:
            known["groups"] = list(groups)
        self._channels[name] = known | settings

    def connect(self) -> Bus:
        """A fresh client."""
        bus = self.harness.connect(self._channels, self.history)
        self._buses.append(bus)
        return bus

    def producer(
        self, channel: str, bus: Bus | None = None, *, create: bool | None = None
    ) -> RecordingProducer:
        """A recording producer, by default over a client of its own."""
        made = (bus or self.connect()).producer(channel, create=create)
        producer = RecordingProducer(made, self.history, f"p{next(self._numbers)}")
        self.made.append(producer)
        return producer

    def consumer(
        self, channel: str, group: str = "g", bus: Bus | None = None, **options: Any
    ) -> RecordingConsumer:
        """A recording consumer that is ready, by default over a client of its own."""
        consumer = RecordingConsumer(
            bus or self.connect(),
            channel,
            group,
            self.history,
            f"c{next(self._numbers)}",
            **options,
        )
        self.made.append(consumer)
        consumer.consumer.ready(self.patience_s)
        return consumer

    def worker(
        self, channel: str, *, work_s: float, action: str = "ack", killer: str | None = None
    ) -> ConsumerProcess:
        """A consumer in a process of its own; ``adopt`` its events when it is over."""
        who = f"w{next(self._numbers)}"
        config = self.harness.config
        job = Job(
            access=Access(config=str(config.file), profile=config.profile, channels=self._channels),
            channel=channel,
            group="g",
            who=who,
            work_s=work_s,
            action=action,
            events=str(Path(self._folder.name, f"{who}.jsonl")),
            killer=killer,
        )
        # One that was started and is not known here would never be stopped.
        finish(lambda: self._workers.append(ConsumerProcess(job)))
        return self._workers[-1]

    def adopt(self, worker: ConsumerProcess) -> None:
        """Merge what a worker that has ended recorded, and that it is gone."""
        events = worker.events()
        self.history.extend(events)
        if events:
            first = events[0]
            gone = replace(first, kind=Kind.CLOSE, prefetch=None, at_ns=time.monotonic_ns())
            self.history.add(gone)

    def any_bus(self, channel: str) -> Bus:
        """A client that knows ``channel`` and is open."""
        known = (bus for bus in reversed(self._buses) if channel in bus.config.channels)
        return next(known, None) or self.connect()

    def close(self) -> None:
        """Close every client and delete every channel.

        What cannot be deleted, because the broker has gone, is logged: it is not the claim.
        """
        finish(self._close)

    def _close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._folder.cleanup()
        for bus in self._buses:
            with contextlib.suppress(GearshiftError):
                bus.close(5.0)
        self._buses.clear()
        with self.harness.connect(self._channels) as bus:
            for problem in delete_channels(bus, *self._channels):
                log.warning("%s", bus.config.masked(problem))
