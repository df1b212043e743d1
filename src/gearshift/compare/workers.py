"""The workers of a trial: threads and processes, started, killed, watched and stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM

import msgspec

from gearshift._observe.process import WorkerProcess
from gearshift._observe.threads import WorkerThread
from gearshift.errors import GearshiftError
from gearshift.operations.cleanup import finish

__all__ = ["WorkerFailed", "Workers"]

_STOP_S = 10.0


class WorkerFailed(GearshiftError):
    """A worker of a scenario ended although nobody had told it to."""


class Workers:
    """Workers by name. ``masked`` hides secrets in the last words of a process. One thread."""

    def __init__(self, folder: Path, channel: str, masked: Callable[[str], str]) -> None:
        self._folder = folder
        self._channel = channel
        self._masked = masked
        self._threads: list[WorkerThread] = []
        self._processes: dict[str, WorkerProcess] = {}
        self._ended: set[str] = set()

    def thread(self, name: str, run: Callable[[threading.Event], None]) -> None:
        """Start ``run`` on a thread of this process."""
        self._threads.append(WorkerThread(run, f"compare-{name}"))

    def process(self, name: str, module: str, job: msgspec.Struct) -> None:
        """Start ``module`` as a process with ``job``."""

        def start() -> None:
            output = self._folder / f"{self._channel}-{name}.log"
            self._processes[name] = WorkerProcess(module, job, output)

        finish(start)  # one that was started and is not known here would never be stopped

    def kill(self, name: str, on_kill: Callable[[], None]) -> None:
        """SIGKILL a process, call ``on_kill``, and see it off."""
        self._ended.add(name)
        process = self._processes[name]
        process.signal(SIGKILL)
        on_kill()
        process.close(_STOP_S)

    def check(self) -> None:
        """Raise the error that ended a thread, or WorkerFailed for a process that ended."""
        for thread in self._threads:
            if thread.error is not None:
                raise thread.error
        for name, process in self._processes.items():
            if name not in self._ended and process.returncode is not None:
                self._ended.add(name)
                last = self._masked(process.last_words())
                raise WorkerFailed(
                    f"the process of worker {name} ended by itself, with {process.returncode}"
                    + (f"; the last that it said: {last}" if last else "")
                )

    def stop(self) -> None:
        """Let everybody drain and leave.

        A thread that hangs is left to the process' end, a process that hangs is killed.
        """
        for thread in self._threads:
            thread.stop.set()
        for name, process in self._processes.items():
            self._ended.add(name)
            process.signal(SIGTERM)
        for thread in self._threads:
            thread.join(_STOP_S)
        for process in self._processes.values():
            process.close(_STOP_S)
        self._threads.clear()
