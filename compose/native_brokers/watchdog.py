"""A helper process that cleans up after a Python process that died without a chance to do so.

Both ends of the pipe between them live here. The owner writes one line for each process group
or folder that must not outlive it; when the owner is gone, this script kills and removes what is
still on the list.

Why not PR_SET_PDEATHSIG: it fires when the *thread* that started the child ends, is cleared when
the child changes user, and reaches one process rather than a group. A pipe has none of that: the
kernel closes it however the owner dies.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO


class Watchdog:
    """The owner's end: starts the helper with the first entry and ends it with the last one.

    Safe to call from several threads. An entry is a process group id or an absolute folder path.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: set[str] = set()
        self._helper: subprocess.Popen[bytes] | None = None

    def add(self, entry: str) -> None:
        """Kill or remove `entry` when this process dies; raises `OSError` if that is not sure."""
        with self._lock:
            if self._helper is None or self._helper.poll() is not None:
                self._helper = self._start()
            self._entries.add(entry)
            _send(self._helper, f"+{entry}\n")

    def forget(self, entry: str) -> None:
        """Leave `entry` alone from now on; does nothing if it is not watched."""
        with self._lock:
            if self._helper is None or entry not in self._entries:
                return
            self._entries.remove(entry)
            with suppress(BrokenPipeError):
                _send(self._helper, f"-{entry}\n")
            if not self._entries:
                _pipe(self._helper).close()
                self._helper.wait()
                self._helper = None

    def _start(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the owner's terminal must not end the helper.
        helper = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        _send(helper, "".join(f"+{entry}\n" for entry in self._entries))
        return helper


def _pipe(helper: subprocess.Popen[bytes]) -> IO[bytes]:
    assert helper.stdin is not None
    return helper.stdin


def _send(helper: subprocess.Popen[bytes], lines: str) -> None:
    # Past the buffer of the pipe object, which would hold on to what a dead helper cannot take.
    os.write(_pipe(helper).fileno(), lines.encode())


def watch(owner: int) -> set[str]:
    """Follow the pipe on standard input until process `owner` is gone; return what is left.

    Ends too when the list is empty again, by which time the owner waits for that.
    """
    entries: set[str] = set()
    unread = b""
    # The parent's id is looked at too: a fork of the owner holds the pipe open behind its back.
    while os.getppid() == owner:
        readable, _, _ = select.select([0], [], [], 1.0)
        if not readable:
            continue
        block = os.read(0, 65_536)
        if not block:
            break
        *lines, unread = (unread + block).split(b"\n")
        for line in map(bytes.decode, lines):
            (entries.add if line.startswith("+") else entries.discard)(line[1:])
        if lines and not entries:
            break
    return entries


def clean_up(entries: set[str]) -> None:
    """Kill the process groups among `entries`, then remove the folders among them."""
    folders = {entry for entry in entries if os.path.isabs(entry)}
    for group in entries - folders:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(int(group), signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    clean_up(watch(int(sys.argv[1])))
