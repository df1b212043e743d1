"""The parts that all drivers of one Backend use: the file, its writer, the sign of life."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from gearshift.driver import ChannelSpec
from gearshift.embedded.capabilities import missing, require_same
from gearshift.embedded.sqlite.liveness import Session, sweep
from gearshift.embedded.sqlite.schema import connect, prepare
from gearshift.embedded.sqlite.settings import Settings
from gearshift.embedded.sqlite.writer import Call, Tx, Writer, identity_of
from gearshift.errors import Closed, UnknownGroup
from gearshift.message import Semantics

__all__ = ["Channel", "Store", "Watch", "find_channel", "find_group", "logs_of", "require_channel"]

T = TypeVar("T")

#: How often a waiting consumer asks whether another process has written. Seconds.
_POLL_S = 0.015


class Channel(NamedTuple):
    """A row of ``channel``."""

    id: int
    semantics: Semantics
    partitions: int
    retention_s: float | None


class Store:
    """The file, opened by the first driver. Any thread.

    ``_lock`` guards writer and session, ``_changed`` the version that rises with each commit.

    ``clock`` is for times that must survive a restart of the machine: of messages, and of when a
    retry is due. Leases go by ``uptime``, which nobody sets: ``time.monotonic`` is the same clock
    in all processes of a machine. It begins again when the machine starts, and stands still while
    the machine sleeps, as its consumers do.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = os.path.abspath(settings.path)
        self.lease_s = settings.lease_s
        self.clock = clock
        self.uptime = uptime
        self.departed: set[int] = set()  # members that left while the file could not be written
        self._busy_timeout_s = settings.busy_timeout_s
        self._lock = threading.Lock()
        self._writer: Writer | None = None
        self._session: Session | None = None
        self._changed = threading.Condition()
        self._version = 0
        self._closed = False

    @property
    def sessions_folder(self) -> str:
        """The folder in which each process with consumers keeps its sign of life."""
        return self.path + ".sessions"

    def writer(self) -> Writer:
        """The writer; prepares the file the first time."""
        with self._lock:
            if self._closed:
                raise Closed("the database was closed")
            if self._writer is None:
                prepare(self.path, timeout_s=self._busy_timeout_s)
                self._writer = Writer(
                    self.path,
                    busy_timeout_s=self._busy_timeout_s,
                    clock=self.clock,
                    uptime=self.uptime,
                    announce=self.announce,
                )
            return self._writer

    def session(self) -> str:
        """The name under which this process can be seen to live."""
        with self._lock:
            if self._session is None or not self._session.intact():
                sweep(self.sessions_folder)
                self._session = Session(self.sessions_folder)
            return self._session.name

    def write(self, function: Callable[[Tx], T]) -> T:
        """Run ``function`` in a transaction and wait for its commit."""
        call = Call(function)
        self.writer().submit(call)
        return call.result()

    def depart(self, member: int, leave: Callable[[Tx], None]) -> None:
        """Have ``member`` leave; where that fails, whoever cares for its group next puts it out."""
        try:
            self.write(leave)
        except Exception:
            self.departed.add(member)
            raise

    def reader(self) -> sqlite3.Connection:
        """A connection for reading, for one thread."""
        self.writer()
        return connect(self.path, timeout_s=self._busy_timeout_s)

    def announce(self) -> None:
        """Something was committed by this process: waiting consumers look again."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Finish what was submitted and let go of the file."""
        with self._lock:
            self._closed = True
            writer, self._writer = self._writer, None
            session, self._session = self._session, None
        if writer is not None:
            writer.stop()
        if session is not None:
            session.close()


class Watch:
    """One consumer waiting for a commit, by this process or another, or for ``wake``."""

    def __init__(self, store: Store, db: sqlite3.Connection) -> None:
        self._store = store
        self._db = db
        self._version = -1
        self._data_version = -1
        self._woken = False
        self._identity = identity_of(store.path)

    def mark(self) -> None:
        """Take note of what is there now."""
        self._version = self._store._version
        self._data_version = self._read_data_version()

    def wait(self, timeout_s: float) -> bool:
        """Wait for something new since ``mark``; True if it was ``wake``. Raises FileReplaced."""
        deadline = time.monotonic() + timeout_s
        changed = self._store._changed
        while True:
            with changed:
                if self._woken:
                    self._woken = False
                    return True
                left = deadline - time.monotonic()
                if left <= 0 or self._version != self._store._version:
                    return False
                changed.wait(min(left, _POLL_S))
            if self._read_data_version() != self._data_version:
                return False
            # Nothing comes any more in a file that was replaced.
            identity_of(self._store.path, self._identity)

    def wake(self) -> None:
        """End the wait, or the next one. Any thread."""
        with self._store._changed:
            self._woken = True
            self._store._changed.notify_all()

    def _read_data_version(self) -> int:
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])


def find_channel(db: sqlite3.Connection, name: str) -> Channel | None:
    """The channel's row."""
    row = db.execute(
        "SELECT id, semantics, partitions, retention_s FROM channel WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else Channel(row[0], Semantics(row[1]), row[2], row[3])


def require_channel(db: sqlite3.Connection, spec: ChannelSpec) -> Channel:
    """The channel that ``spec`` means. Raises UnknownChannel and TopologyConflict."""
    channel = find_channel(db, spec.name)
    if channel is None:
        raise missing(spec)
    require_same(spec, channel.semantics)
    return channel


def find_group(db: sqlite3.Connection, channel: Channel, name: str) -> int:
    """The group's id. Raises UnknownGroup."""
    row = db.execute(
        "SELECT id FROM consumer_group WHERE channel = ? AND name = ?", (channel.id, name)
    ).fetchone()
    if row is None:
        raise UnknownGroup(f"there is no group {name!r}")
    return int(row[0])


def logs_of(db: sqlite3.Connection, channel: Channel) -> dict[int, int]:
    """Partition → log id."""
    rows = db.execute("SELECT partition, id FROM log WHERE channel = ?", (channel.id,))
    return dict(rows.fetchall())
