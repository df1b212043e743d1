"""One child process with everything that it starts: spawn, signal, end, and leave nothing."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import NamedTuple

from native_brokers.errors import BrokerUnavailable
from native_brokers.watchdog import Watchdog

watchdog = Watchdog()
_LIBC = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438  # the same on every architecture; Python has no name for it
_GONE_TIMEOUT_S = 10.0
_STOPPED_TIMEOUT_S = 10.0
# The child waits for a line before it becomes the server. If the owner dies before the watchdog
# knows the new process group, the line never comes and the child exits by itself.
_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@"', "gate")


class Account(NamedTuple):
    """Whom a child runs as; None keeps this process's own user and group."""

    user: int | None = None
    group: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        """The supplementary groups: none for another user."""
        return None if self.user is None else []


OWN_ACCOUNT = Account()


class Process:
    """A running child, leader of its own process group, watched over until it has ended."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: Path,
        log: Path,
        account: Account = OWN_ACCOUNT,
    ) -> None:
        """Start `argv` in `directory` as `account`; its output is appended to `log`."""
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [*_GATE, *argv],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=directory,
                start_new_session=True,
                user=account.user,
                group=account.group,
                extra_groups=account.extra_groups,
            )
        watchdog.add(str(self.pid))
        self._open_gate()

    def _open_gate(self) -> None:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError), self._child.stdin as gate:
            gate.write(b"go\n")

    @property
    def pid(self) -> int:
        """The process id, which is also the group id."""
        return self._child.pid

    def running(self) -> bool:
        """Tell whether the process has not ended; does not block."""
        return self._child.poll() is None

    def send(self, signal: Signals) -> None:
        """Send `signal` to the whole group; does nothing if it has ended."""
        if self.running():
            os.killpg(self.pid, signal)

    def pause(self) -> None:
        """SIGSTOP the whole group; blocks until every thread of the process stands still."""
        self.send(SIGSTOP)
        deadline = time.monotonic() + _STOPPED_TIMEOUT_S
        while not _stands_still(self.pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.pid} runs {_STOPPED_TIMEOUT_S:g} s after SIGSTOP")
            time.sleep(0.001)

    def kill(self) -> None:
        """SIGKILL the process and all its descendants; blocks until they are gone."""
        self._end(SIGKILL, grace_s=0.0)

    def terminate(self, grace_s: float) -> None:
        """Ask the process to end, and kill what is left after `grace_s` seconds; blocks."""
        self._end(SIGTERM, grace_s)

    def _end(self, first: Signals, grace_s: float) -> None:
        # Servers start helpers in sessions of their own, so the group alone is not the whole tree.
        tree = descendants(self.pid) if self.running() else []
        self.send(first)
        self.send(SIGCONT)  # a stopped process sees SIGTERM only once it goes on
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(grace_s)
        self.send(SIGKILL)
        self._child.wait(_GONE_TIMEOUT_S)
        for process in tree:
            if process.alive():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, SIGKILL)
        wait_gone(tree, _GONE_TIMEOUT_S)
        watchdog.forget(str(self.pid))


class Seen(NamedTuple):
    """A process as it was found; the start time tells it from a later owner of the same id."""

    pid: int
    parent: int
    started: str

    def alive(self) -> bool:
        """Tell whether this very process still runs; a zombie does not."""
        # Not compared with the parent, which changes when the process is orphaned.
        seen = _look(self.pid)
        return seen is not None and seen.started == self.started


def descendants(pid: int) -> list[Seen]:
    """Return the processes below `pid`, itself excluded (none where there is no /proc)."""
    children: dict[int, list[Seen]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        seen = _look(int(entry.name))
        if seen is not None:
            children.setdefault(seen.parent, []).append(seen)
    found: list[Seen] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += [seen.pid for seen in below]
    return found


def wait_gone(processes: Sequence[Seen], timeout_s: float) -> None:
    """Block until all `processes` have ended; `TimeoutError` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while left := [process.pid for process in processes if process.alive()]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} still run {timeout_s:g} s after SIGKILL")
        time.sleep(0.01)


def close_connections(pid: int, ports: Iterable[int]) -> None:
    """Shut the connections of process `pid` to these ports down, as seen from both ends.

    The process must be one of this user's, or this user root.
    """
    wanted = set(ports)
    process = os.pidfd_open(pid)
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            # Most descriptors are no connections, or none any more.
            with suppress(OSError), _same_socket(process, int(descriptor)) as connection:
                is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
                if is_tcp and connection.getpeername()[1] in wanted:
                    connection.shutdown(socket.SHUT_RDWR)
    finally:
        os.close(process)


def _same_socket(process: int, descriptor: int) -> socket.socket:
    """Return another process's socket; raises OSError if the descriptor is not one."""
    copied = _LIBC.syscall(_PIDFD_GETFD, process, descriptor, 0)
    if copied < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        return socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        raise


def _look(pid: int) -> Seen | None:
    if (fields := _fields(Path(f"/proc/{pid}/stat"))) is None:
        return None
    state, parent, *rest = fields
    return None if state in "ZX" else Seen(pid, int(parent), started=rest[17])


def _fields(stat: Path) -> list[str] | None:
    try:
        text = stat.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the name in brackets may hold anything, so fields are counted from the last bracket.
    return text.rpartition(")")[2].split()


def _stands_still(pid: int) -> bool:
    # A stop signal is delivered to each thread in its own time; until then some still answer.
    threads = map(_fields, Path(f"/proc/{pid}/task").glob("*/stat"))
    return all(fields[0] in "TZX" for fields in threads if fields)


def run_or_raise(argv: Sequence[str | Path], problem: str) -> None:
    """Run `argv`; raises `BrokerUnavailable` with `problem` and its last lines if it fails."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise BrokerUnavailable("\n".join([problem, *done.stdout.splitlines()[-20:]]))
