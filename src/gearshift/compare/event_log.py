"""The event log of a trial: every process appends to it, and the trial reads along."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self

from gearshift._observe.json_log import LogReader, LogWriter
from gearshift.compare.ledger import Event, Kind, Sample

__all__ = ["EventLog", "Recorder"]


class Recorder:
    """Appends to the log at ``path``, with times since ``origin_ns``. Any thread, any process."""

    def __init__(self, path: Path, origin_ns: int) -> None:
        self._events, self._samples = LogWriter(path), LogWriter(_samples_of(path))
        self._origin_ns = origin_ns

    def event(self, kind: Kind, who: str, **fields: Any) -> None:
        """Record what happens now; it is in the file when this returns."""
        self._events.write(Event(at_ms=self.now_ms(), kind=kind, who=who, **fields))

    def sample(
        self, name: str, value: float, *, who: str = "", group: str = "", at_ms: float | None = None
    ) -> None:
        """Record a number of ``at_ms``; None: of this moment."""
        at_ms = self.now_ms() if at_ms is None else at_ms
        self._samples.write(Sample(at_ms=at_ms, name=name, value=value, who=who, group=group))

    def close(self) -> None:
        """Close the files. Call it once."""
        self._events.close()
        self._samples.close()

    def now_ms(self) -> float:
        """Milliseconds since the trial began."""
        return round((time.monotonic_ns() - self._origin_ns) / 1e6, 3)


class EventLog:
    """Reads the log while others write. Any thread."""

    def __init__(self, path: Path) -> None:
        self._events = LogReader(path, Event)
        self._samples = LogReader(_samples_of(path), Sample)

    def written(self) -> list[Event]:
        """Every event until now, in the order of writing."""
        return self._events.read()

    def events(self) -> tuple[Event, ...]:
        """Every event until now, by time."""
        return tuple(sorted(self._events.read(), key=lambda event: event.at_ms))

    def samples(self) -> tuple[Sample, ...]:
        """Every sample until now, by time."""
        return tuple(sorted(self._samples.read(), key=lambda sample: sample.at_ms))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()
        self._samples.close()


def _samples_of(path: Path) -> Path:
    return path.with_suffix(".samples")
