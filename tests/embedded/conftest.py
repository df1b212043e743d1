"""A database of its own for every test, and processes that share it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE_S

import gearshift

ACTORS = Path(__file__).with_name("actors.py")


class Actor:
    """A process of ``actors.py``. What it says comes through ``event``."""

    def __init__(self, role: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ACTORS), role, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def event(self) -> dict[str, Any]:
        """The next thing that it says. Fails if it ends instead."""
        event = self._events.get(timeout=PATIENCE_S)
        assert event is not None, f"the process ended with {self.process.wait()}"
        return event

    def rest(self) -> list[dict[str, Any]]:
        """All that it says until it ends, which it must do in order."""
        events = list(iter(lambda: self._events.get(timeout=PATIENCE_S), None))
        assert self.process.wait(PATIENCE_S) == 0
        return events  # type: ignore[return-value]

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, unless it has ended by itself."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def actor() -> Iterator[Callable[..., Actor]]:
    """Starts processes; none outlives the test."""
    started: list[Actor] = []

    def start(role: str, *arguments: object) -> Actor:
        started.append(Actor(role, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the database will be."""
    return tmp_path / "shared.db"


@pytest.fixture
def config(tmp_path: Path, database: Path) -> Path:
    """A gearshift.toml for it: the queue ``work``, the stream ``log``, short waits for locks."""
    file = tmp_path / "gearshift.toml"
    file.write_text(
        f"""
        profile = "p"
        [profiles.p]
        backend = "sqlite"
        path = "{database}"
        busy_timeout_s = 1.0
        [channels.work]
        groups = ["workers"]
        [channels.log]
        semantics = "stream"
        partitions = 4
        """
    )
    return file


@pytest.fixture
def bus(config: Path) -> Iterator[gearshift.Bus]:
    """This process's bus on the database."""
    with gearshift.open(config) as opened:
        yield opened
