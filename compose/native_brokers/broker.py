"""What every native broker is: a private folder, fixed ports, one server process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from signal import SIGCONT
from types import TracebackType
from typing import ClassVar, Self

from native_brokers.errors import BrokerUnavailable
from native_brokers.ports import free_ports
from native_brokers.process import Process, watchdog

_STOP_GRACE_S = 15.0
_POLL_S = 0.05
_SHOWN_LOG_LINES = 20


class Broker(ABC):
    """A broker on this machine, made for tests that break it. Use from one thread at a time.

    It listens on 127.0.0.1 only, on ports picked once and kept, so that clients find it again
    after `kill` and `start`. Its data live in one folder. Whatever way this Python process ends,
    the server ends too.
    """

    name: ClassVar[str]
    port_count: ClassVar[int]

    def __init__(self, directory: Path | None = None) -> None:
        """Keep data and logs in `directory`, or in a private folder that `stop` removes."""
        self._given = directory
        self._directory = directory
        self._process: Process | None = None
        self._helpers: list[Process] = []  # what `_launch` started beside it; ended by `stop`
        self._owner = os.getpid()

    @classmethod
    @abstractmethod
    def install(cls) -> None:
        """Obtain the server's software; returns at once if it is there, blocks while it is not.

        Raises `BrokerUnavailable`, which names the command to run, if it cannot.
        """

    @property
    @abstractmethod
    def url(self) -> str:
        """What clients connect to. Known before `start`, and the same after every restart."""

    @abstractmethod
    def _launch(self, directory: Path) -> Process:
        """Write the configuration and start the server on `self._ports`; need not wait for it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Ask the server over its own protocol whether it serves; blocks for seconds at most."""

    @cached_property
    def _ports(self) -> tuple[int, ...]:
        return free_ports(self.port_count)

    @property
    def port(self) -> int:
        """The TCP port for clients, on 127.0.0.1; picked at first use, then kept."""
        return self._ports[0]

    @property
    def pid(self) -> int:
        """The id of the server process itself; raises `BrokerUnavailable` if it does not run."""
        return self._running().pid

    @property
    def log(self) -> Path:
        """The file with the server's log; raises `BrokerUnavailable` before the first start."""
        if self._directory is None:
            raise BrokerUnavailable(f"{self.name} has no log yet; call start() first")
        return self._directory / f"{self.name.lower()}.log"

    def start(self, timeout_s: float = 90.0) -> None:
        """Start the server, on the data of the last run if there are any; no-op if it runs.

        Blocks until it answers clients. Raises `BrokerUnavailable` if it is not installed, a port
        was taken meanwhile, it ends, or it does not answer within `timeout_s` seconds.
        """
        if self._process is not None and self._process.running():
            return
        self.kill()  # tidies up after a server that ended by itself
        directory = self._make_directory()
        atexit.register(self._stop_at_exit)
        self._process = self._launch(directory)
        try:
            self._wait_for_answer(self._process, timeout_s)
        except BaseException:
            self._process.kill()
            raise

    def kill(self) -> None:
        """SIGKILL the server and all its processes; blocks until they are gone. Data stay."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP the server: connections stay open and nothing answers, until `resume`."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT a paused server."""
        self._running().send(SIGCONT)

    def stop(self) -> None:
        """Shut the server down, or kill it after 15 seconds; removes a private folder.

        Blocks until every process is gone. Calling it again does nothing.
        """
        if self._process is not None:
            self._process.terminate(_STOP_GRACE_S)
            self._process = None
        while self._helpers:
            self._helpers.pop().kill()
        self._remove_directory()
        atexit.unregister(self._stop_at_exit)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _stop_at_exit(self) -> None:
        # A fork inherits the exit handlers; the broker still belongs to the first process.
        if os.getpid() == self._owner:
            self.stop()

    def _running(self) -> Process:
        if self._process is None or not self._process.running():
            raise BrokerUnavailable(f"{self.name} does not run; call start() first")
        return self._process

    def _wait_for_answer(self, process: Process, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if not process.running():
                raise BrokerUnavailable(f"{self.name} ended while it started; {self._log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"{self.name} did not answer within {timeout_s:g} s; {self._log_tail()}"
                )
            time.sleep(_POLL_S)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
        return "\n".join([f"the end of {self.log}:", *lines])

    def _make_directory(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=f"gearshift-{self.name.lower()}-"))
            watchdog.add(str(self._directory))
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory.resolve()

    def _remove_directory(self) -> None:
        if self._given is None and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            watchdog.forget(str(self._directory))
            self._directory = None
