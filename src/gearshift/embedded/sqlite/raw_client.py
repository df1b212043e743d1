"""sqlite3 by hand, to be measured beside: a table of messages, of which what is handled is deleted.

As durable as ours: a write-ahead log that is synced at every commit. There is one group, and nobody
is told that a message has come.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from gearshift.driver import ChannelSpec
from gearshift.driver.measuring import (
    HEADERS,
    PREFETCH,
    Load,
    RawClient,
    Received,
    Sample,
    Stopwatch,
    in_threads,
    timed,
)
from gearshift.embedded.sqlite.schema import connect
from gearshift.embedded.sqlite.settings import Settings
from gearshift.message import Semantics

__all__ = ["raw_client"]

_TABLE = """CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY, key TEXT, body BLOB, headers TEXT, taken INTEGER NOT NULL DEFAULT 0
)"""
_INDEX = "CREATE INDEX IF NOT EXISTS free ON message (id) WHERE taken = 0"
_STORE = "INSERT INTO message (key, body, headers) VALUES (?, ?, ?)"
_TAKE = """UPDATE message SET taken = 1
    WHERE id IN (SELECT id FROM message WHERE taken = 0 ORDER BY id LIMIT ?) RETURNING id, body"""
_SETTLE = "DELETE FROM message WHERE id = ?"
_IDLE_S = 0.001


def raw_client(settings: Settings, channel: ChannelSpec) -> RawClient | None:
    """sqlite3 with a file of its own beside the profile's; None for streams."""
    if channel.semantics is not Semantics.QUEUE:
        return None
    file = settings.path.with_name(f"{settings.path.name}.{channel.name}")
    by_hand = _ByHand(file, settings.busy_timeout_s)
    return RawClient(f"sqlite3 {sqlite3.sqlite_version}", by_hand, by_hand.remove)


class _ByHand:
    def __init__(self, file: Path, timeout_s: float) -> None:
        self._file = file
        self._timeout_s = timeout_s

    def send(self, load: Load) -> Sample:
        """INSERT and commit; of many threads one at a time."""
        lock = threading.Lock()
        with self._opened() as db:

            def store(key: str, body: bytes) -> None:
                with lock:
                    db.execute(_STORE, _row(key, body))

            return in_threads(store, load)

    def send_many(self, load: Load) -> Sample:
        """INSERT, a commit for 500."""
        with self._opened() as db:

            def run() -> int:
                source = iter(load)
                while part := [_row(key, body) for key, body in islice(source, PREFETCH)]:
                    _together(db, _STORE, part)
                return load.total

            return timed(run)

    def receive(self, load: Load) -> Sample:
        """UPDATE takes 500, DELETE settles each, a commit for both."""
        received = Received(load.total)
        with self._opened() as db:
            while not received.complete:
                if not (rows := db.execute(_TAKE, [received.wanted]).fetchall()):
                    break
                received.add(*(body for _, body in rows))
                _together(db, _SETTLE, [(id_,) for id_, _ in rows])
            return received.sample()

    def end_to_end(self, load: Load) -> Sample:
        """INSERT; UPDATE and DELETE, looking every millisecond."""
        watch = Stopwatch(load)

        def serve() -> None:
            with self._opened() as db:
                watch.ready()
                while not watch.ended:
                    if not (rows := db.execute(_TAKE, [PREFETCH]).fetchall()):
                        time.sleep(_IDLE_S)
                        continue
                    for _, body in rows:
                        watch.arrived(body)
                    _together(db, _SETTLE, [(id_,) for id_, _ in rows])

        with self._opened() as db:
            return watch.run(lambda body: db.execute(_STORE, _row("", body)), serve)

    def remove(self) -> None:
        """The file and what SQLite keeps beside it."""
        for end in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + end).unlink(missing_ok=True)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        db = connect(str(self._file), timeout_s=self._timeout_s)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(_TABLE)
            db.execute(_INDEX)
            yield db
        finally:
            db.close()


def _row(key: str, body: bytes) -> tuple[str, bytes, str]:
    return key, body, json.dumps(HEADERS)


def _together(db: sqlite3.Connection, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany(statement, rows)
    db.execute("COMMIT")
