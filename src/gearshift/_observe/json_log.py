"""Files of JSON lines that many processes append to, and that lose nothing when one is killed.

A line is written with a single ``write`` to a file opened for appending, before whatever it records
goes on: a SIGKILL neither tears a line nor takes one along.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

__all__ = ["LogReader", "LogWriter"]

T = TypeVar("T")


class LogWriter:
    """Appends records to a file. Any thread, any number of processes."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, record: object) -> None:
        """Append ``record``; it is in the file when this returns."""
        os.write(self._file, msgspec.json.encode(record) + b"\n")

    def close(self) -> None:
        """Close the file. Call it once."""
        os.close(self._file)


class LogReader(Generic[T]):
    """Reads the records of a file while others append to it. Any thread.

    State: the records read so far and the beginning of a line that is not whole yet, both guarded
    by the lock.
    """

    def __init__(self, path: Path, type_: type[T]) -> None:
        path.touch()
        self._file = path.open("rb")
        self._decoder = msgspec.json.Decoder(type_)
        self._lock = threading.Lock()
        self._records: list[T] = []
        self._rest = b""

    def read(self) -> list[T]:
        """Every record until now, in the order of writing."""
        with self._lock:
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
            self._records += map(self._decoder.decode, lines)
            return list(self._records)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
