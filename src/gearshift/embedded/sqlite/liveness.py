"""Telling a dead process from a slow one: a lock that the kernel lets go of when its holder dies.

Each Backend with consumers holds an exclusive ``flock`` on a file of its own beside the database.
Whoever can lock that file knows that the holder is gone, however it went, and takes over its work
at once instead of waiting for a lease to end. flock belongs to the open file, so two Backends in
one process do not disturb each other (record locks would), and it works across containers that
share a kernel and a folder (process ids would not). A forked child inherits the lock and keeps
it up, and a system without flock has no such file: then the leases decide, later.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from types import ModuleType

try:
    import fcntl as _fcntl
except ImportError:  # Windows
    fcntl: ModuleType | None = None
else:
    fcntl = _fcntl

__all__ = ["Session", "is_dead", "sweep"]


class Session:
    """Says 'alive' for ``name`` until it is closed or this process is gone."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file: int | None = None
        self._begin()
        # Between creating the file and locking it a sweep may take it for a dead one's.
        while not self.intact():
            self.close()
            self._begin()

    def _begin(self) -> None:
        self.name = secrets.token_hex(8)
        self._path = os.path.join(self._folder, self.name)
        if fcntl is not None:
            os.makedirs(self._folder, exist_ok=True)
            self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def intact(self) -> bool:
        """False if somebody removed the file: then others take this process for dead."""
        if self._file is None:
            return fcntl is None
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except OSError:
            return False

    def close(self) -> None:
        """Stop saying so. Idempotent."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._file)
            self._file = None


def is_dead(folder: str, name: str) -> bool:
    """True if the process of session ``name`` is certainly gone, or has closed it. Never blocks."""
    if fcntl is None:
        return False
    path = os.path.join(folder, name)
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):
            os.unlink(path)
        return True
    except OSError:
        return False
    finally:
        os.close(file)


def sweep(folder: str) -> None:
    """Remove the files of dead sessions that left nothing else behind."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            is_dead(folder, name)
