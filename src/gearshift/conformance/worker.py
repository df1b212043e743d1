"""A consumer in a process of its own, to be killed or frozen.

``main`` reads a ``Job`` as JSON from stdin, receives, works for a while on each delivery, settles
it, and appends every event to a file before it goes on: what SIGKILL leaves there is what had
happened.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from gearshift import config as configuration
from gearshift import plugins
from gearshift.bus import Bus
from gearshift.conformance.history import Event, History
from gearshift.conformance.recording import RecordingConsumer
from gearshift.errors import GearshiftError

__all__ = ["Job", "WorkerProcess"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do: work on each delivery of ``channel`` for ``work_s`` seconds, then
    settle it with ``verdict``, "ack" or "retry"; to die of the message with the id ``killer``."""

    config: str
    profile: str
    channels: dict[str, dict[str, Any]]
    channel: str
    group: str
    actor: str
    prefetch: int
    work_s: float
    verdict: str
    events: str
    killer: str | None = None


class WorkerProcess:
    """A running worker. Close it; that kills what still runs."""

    def __init__(self, job: Job) -> None:
        self.actor = job.actor
        self._events = Path(job.events)
        self._events.touch()
        command = [sys.executable, "-c", f"from {__name__} import main; main()"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(job))
        self._process.stdin.close()

    def events(self) -> list[Event]:
        """What it has recorded so far."""
        lines = self._events.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        return [msgspec.json.decode(line, type=Event) for line in whole]

    def signal(self, number: signal.Signals) -> None:
        """Send it SIGKILL, SIGSTOP, SIGCONT or SIGTERM."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        self._process.wait(timeout_s)

    def close(self) -> None:
        """Kill it if it still runs. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()


class _Log(History):
    """A history that is on disk before the next thing happens."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream

    def add(self, event: Event) -> None:
        os.write(self._stream.fileno(), msgspec.json.encode(event) + b"\n")


def main() -> None:
    """Work until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    with _open(job.config, job.profile, job.channels) as bus, open(job.events, "ab", 0) as stream:
        consumer = RecordingConsumer(
            bus, job.channel, job.group, _Log(stream), job.actor, prefetch=job.prefetch
        )
        with consumer:
            while not stop.is_set():
                for delivery in consumer.receive(timeout_s=0.1):
                    if delivery.id == job.killer:
                        os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(job.work_s)
                    try:
                        getattr(consumer, job.verdict)(delivery)
                    except GearshiftError:
                        continue  # recorded as failed; it goes to somebody else


def _open(file: str, profile: str, channels: Mapping[str, Mapping[str, Any]]) -> Bus:
    config = configuration.with_channels(configuration.load(file, profile=profile), channels)
    plugin = plugins.load(config.backend)
    return Bus(config, plugin, plugin.connect(config.settings_for(plugin)))
