"""One file per trial that every process appends to, a JSON line an event, and its reader.

A line is written with one ``write`` to a file opened for appending before whatever it tells of goes
on: a killed process tears no line and takes none along.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from gearshift.compare.ledger import Event, Kind, Sample
from gearshift.errors import DeadlineExceeded

__all__ = ["Recorder", "Tape"]

_POLL_S = 0.02
_EVENT, _SAMPLE = b"E", b"S"


class Recorder:
    """Appends to a tape. Any thread, any process."""

    def __init__(self, path: Path, origin_ns: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._origin_ns = origin_ns

    def event(self, kind: Kind, who: str, **fields: Any) -> None:
        """Write down what happens now; it is in the file when this returns."""
        event = Event(at_ms=self._now_ms(), kind=kind, who=who, **fields)
        os.write(self._file, _EVENT + msgspec.json.encode(event) + b"\n")

    def sample(self, name: str, value: float, *, who: str = "", group: str = "") -> None:
        """Write down a number of this moment."""
        sample = Sample(at_ms=self._now_ms(), name=name, value=value, who=who, group=group)
        os.write(self._file, _SAMPLE + msgspec.json.encode(sample) + b"\n")

    def close(self) -> None:
        """Idempotence is not needed: call it once."""
        os.close(self._file)

    def _now_ms(self) -> float:
        return round((time.monotonic_ns() - self._origin_ns) / 1e6, 3)


class Tape:
    """Reads along while others write. Any thread."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open("rb")
        self._rest = b""
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._samples: list[Sample] = []

    def events(self) -> tuple[Event, ...]:
        """Every event until now, by time."""
        self._read()
        return tuple(sorted(self._events, key=lambda event: event.at_ms))

    def samples(self) -> tuple[Sample, ...]:
        """Every sample until now, by time."""
        self._read()
        return tuple(sorted(self._samples, key=lambda sample: sample.at_ms))

    def wait(
        self,
        condition: Callable[[list[Event]], bool],
        timeout_s: float,
        what: str,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Until ``condition`` holds for the events written so far, in the order of writing.

        ``check`` is called in between and may raise. Raises DeadlineExceeded naming ``what``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._read()
            if condition(self._events):
                return
            check()
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"{what}: not within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> None:
        with self._lock:
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
            for line in lines:
                if line.startswith(_EVENT):
                    self._events.append(msgspec.json.decode(line[1:], type=Event))
                else:
                    self._samples.append(msgspec.json.decode(line[1:], type=Sample))
