"""What every native broker is: a private folder, fixed ports, one server process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from signal import SIGCONT
from types import TracebackType
from typing import ClassVar, Self
from weakref import WeakSet

from native_brokers.errors import BrokerUnavailable
from native_brokers.ports import is_free, release_ports, reserve_ports
from native_brokers.process import Process, watchdog
from native_brokers.software import Software

_STOP_GRACE_S = 15.0
_SHUT_DOWN_GRACE_S = 60.0
_POLL_S = 0.05
_SHOWN_LOG_LINES = 20
_started: WeakSet[Broker] = WeakSet()


def running_brokers() -> list[Broker]:
    """Return the brokers that this process started and that still run. From any thread."""
    return [one for one in list(_started) if one._owner == os.getpid() and one._runs()]


class Startable(ABC):
    """Something that runs from `start` to `stop`, or for a `with` block."""

    @abstractmethod
    def start(self) -> None:
        """Start it, unless it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it, whatever has come of the start; calling it again does nothing."""

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


class Broker(Startable):
    """A broker on this machine, made for tests that break it. Use from one thread at a time.

    It listens on 127.0.0.1 only, on ports that are reserved from their first use until `stop`.
    Should another program take one of them before the first start, that start picks others; from
    then on they stay, so that clients find the broker again after `kill` and `start`. Its data
    live in one folder. Whatever way this Python process ends, the server ends too.
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
        self._picked: tuple[int, ...] = ()
        self._ports_are_final = False

    @classmethod
    @abstractmethod
    def software(cls) -> tuple[Software, ...]:
        """Return what the server needs on this machine, in the order of fetching."""

    @classmethod
    def install(cls) -> None:
        """Fetch what is missing of `software`; see `Software.install`. `start` calls it."""
        for each in cls.software():
            each.install()

    @property
    @abstractmethod
    def url(self) -> str:
        """What clients connect to; final once the first start has returned."""

    @abstractmethod
    def _launch(self, directory: Path) -> Process:
        """Write the configuration and start the server on `self._ports`; need not wait for it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Ask the server over its own protocol whether it serves; blocks for seconds at most."""

    @property
    def _ports(self) -> tuple[int, ...]:
        if not self._picked:
            self._picked = reserve_ports(self.port_count)
        return self._picked

    @property
    def port(self) -> int:
        """The TCP port for clients, on 127.0.0.1; final once the first start has returned."""
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

        Fetches its software if that is missing. Blocks until it answers clients. Raises
        `BrokerUnavailable` if it cannot be installed, a port was taken since the first start, it
        ends, or it does not answer within `timeout_s` seconds.
        """
        if self._runs():
            return
        self.install()
        self.kill()  # tidies up after a server that ended by itself
        directory = self._make_directory()
        atexit.register(self._stop_at_exit)
        while True:
            try:
                self._process = self._launch(directory)
                _started.add(self)
                self._wait_for_answer(self._process, timeout_s)
                break
            except BaseException as error:
                self.kill()
                self._kill_helpers()
                if not isinstance(error, BrokerUnavailable) or not self._leave_taken_ports():
                    raise
        self._ports_are_final = True

    def kill(self) -> None:
        """SIGKILL the server and all its processes; blocks until they are gone. Data stay."""
        if self._process is not None:
            self._process.kill()

    def shut_down(self) -> None:
        """Have the server end in order, or kill it after a minute; blocks. Data and ports stay."""
        if self._process is not None:
            self._process.terminate(_SHUT_DOWN_GRACE_S)

    def pause(self) -> None:
        """SIGSTOP the server: connections stay open and nothing answers, until `resume`."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT a paused server."""
        self._running().send(SIGCONT)

    def stop(self) -> None:
        """Shut the server down, or kill it after 15 seconds; removes a private folder.

        Blocks until every process is gone. Gives up the ports: a later start picks others. Calling
        it again does nothing.
        """
        if self._process is not None:
            self._process.terminate(_STOP_GRACE_S)
            self._process = None
        self._kill_helpers()
        self._remove_directory()
        release_ports(self._picked)
        self._picked, self._ports_are_final = (), False
        atexit.unregister(self._stop_at_exit)

    def _stop_at_exit(self) -> None:
        # A fork inherits the exit handlers; the broker still belongs to the first process.
        if os.getpid() == self._owner:
            self.stop()

    def log_tail(self, lines: int = _SHOWN_LOG_LINES) -> str:
        """Return the last `lines` of the log; raises as `log` does."""
        shown = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"the end of {self.log}:", *shown])

    def _runs(self) -> bool:
        return self._process is not None and self._process.running()

    def _running(self) -> Process:
        if self._process is None or not self._process.running():
            raise BrokerUnavailable(f"{self.name} does not run; call start() first")
        return self._process

    def _kill_helpers(self) -> None:
        while self._helpers:
            self._helpers.pop().kill()

    def _leave_taken_ports(self) -> bool:
        """Pick other ports if another program has one of ours; False if none has, or too late."""
        if self._ports_are_final or all(map(is_free, self._ports)):
            return False
        release_ports(self._picked)
        self._picked = reserve_ports(self.port_count)
        return True

    def _wait_for_answer(self, process: Process, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if not process.running():
                raise BrokerUnavailable(f"{self.name} ended while it started; {self.log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"{self.name} did not answer within {timeout_s:g} s; {self.log_tail()}"
                )
            time.sleep(_POLL_S)

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
