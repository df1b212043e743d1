"""The one thread of a Backend that writes: what waits is committed together.

A commit costs an fsync whether it holds one message or a thousand, so the thread takes all that is
waiting (publishes, claims, settlements, of any driver) into one transaction, and tells each job how
it ended after the commit. A lone job is committed at once: nothing waits for company. It also keeps
the threads of a process from fighting over SQLite's write lock, which only other processes contend.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from gearshift.driver import Stored
from gearshift.embedded.sqlite.errors import FileReplaced, code_of, is_busy
from gearshift.embedded.sqlite.schema import base_of, connect
from gearshift.errors import Closed
from gearshift.message import Key

__all__ = ["Call", "Job", "Tx", "Writer"]

T = TypeVar("T")

#: A transaction takes jobs until they weigh this much (messages), so that others get their turn.
_MOST_WEIGHT = 5_000

#: How long to leave the lock free between transactions while other processes want it.
_COURTESY_S = 0.002


class Tx:
    """One open transaction. ``changed``: others may have something new to do after it.

    ``now`` is the wall clock's time, ``uptime`` that of the machine's monotonic clock.
    """

    def __init__(self, db: sqlite3.Connection, now: float, uptime: float) -> None:
        self.db = db
        self.now = now
        self.uptime = uptime
        self.changed = False
        self._rows: list[tuple[int, int, Key | None, bytes | None, bytes]] = []
        self._logs: dict[int, tuple[int, int]] = {}

    def reserve(self, log: int, count: int) -> tuple[int, int]:
        """The first of ``count`` new ids at the end of ``log``, and their time in ms."""
        found = self._logs.get(log)
        if found is None:
            found = self.db.execute("SELECT next, at_ms FROM log WHERE id = ?", (log,)).fetchone()
        first, at_ms = found
        at_ms = max(at_ms, int(self.now * 1000))  # times in a log never fall
        self._logs[log] = (first + count, at_ms)
        return base_of(log) + first, at_ms

    def append(self, row: tuple[int, int, Key | None, bytes | None, bytes]) -> None:
        """Insert a message, at the latest when ``flush`` is called."""
        self._rows.append(row)

    def flush(self) -> None:
        """Make appended messages visible to the statements that follow."""
        if self._rows:
            self.db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?)", self._rows)
            self._rows.clear()
            self.changed = True
        if self._logs:
            ends = [(next_, at_ms, log) for log, (next_, at_ms) in self._logs.items()]
            self.db.executemany("UPDATE log SET next = ?, at_ms = ? WHERE id = ?", ends)
            self._logs.clear()


class Job(Protocol):
    """Work for the writer. ``submitted_at`` (monotonic) starts its time to wait for the lock."""

    submitted_at: float
    weight: int

    def run(self, tx: Tx) -> None:
        """Do it. Runs again, in a new transaction, if another job of this one failed."""

    def done(self, error: Exception | None, stored: Stored) -> None:
        """It was committed (``stored`` YES), or not (NO), or nobody knows. On any thread."""


class Call(Generic[T]):
    """A job whose result somebody waits for."""

    weight = 100

    def __init__(self, function: Callable[[Tx], T]) -> None:
        self._function = function
        self._finished = threading.Event()
        self._result: list[T] = []
        self._error: Exception | None = None
        self.submitted_at = time.monotonic()

    def run(self, tx: Tx) -> None:
        tx.flush()
        self._result[:] = [self._function(tx)]

    def done(self, error: Exception | None, stored: Stored) -> None:
        self._error = error
        self._finished.set()

    def result(self) -> T:
        """Wait, and return what the function returned or raise what it raised."""
        self._finished.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]


class Writer:
    """A thread that commits jobs in order; ``_state`` guards whether it takes further ones."""

    def __init__(
        self,
        path: str,
        *,
        busy_timeout_s: float,
        clock: Callable[[], float],
        uptime: Callable[[], float],
        announce: Callable[[], None],
    ) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._clock = clock
        self._uptime = uptime
        self._announce = announce
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._state = threading.Lock()
        self._stopping = False
        self._db: sqlite3.Connection | None = None
        self._identity = os.stat(path)
        self._crowded_until = 0.0
        self._waiting_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="gearshift-sqlite", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Take a job and return at once. Any thread."""
        with self._state:
            if not self._stopping:
                self._jobs.put(job)
                return
        job.done(Closed("the database was closed"), Stored.NO)

    def waiting_s(self) -> float:
        """Seconds for which other processes have kept the lock that this one wants. Any thread."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """Finish what was submitted, and end the thread."""
        with self._state:
            if not self._stopping:
                self._stopping = True
                self._jobs.put(None)
        self._thread.join()

    # ── the thread ──

    def _work(self) -> None:
        more = True
        while more:
            jobs, more = self._collect()
            while jobs:
                jobs = self._attempt(jobs)
            if self._crowded_until > time.monotonic() and more:
                time.sleep(_COURTESY_S)
        self._disconnect()

    def _collect(self) -> tuple[list[Job], bool]:
        """Wait for a job, and take all that wait with it; False once it is time to stop."""
        jobs: list[Job] = []
        weight = 0
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            weight += job.weight
            if weight >= _MOST_WEIGHT:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _attempt(self, jobs: list[Job]) -> list[Job]:
        """Commit ``jobs`` in one transaction; returns those to try again, if one has failed."""
        stored = Stored.NO
        try:
            db = self._begin(jobs[0].submitted_at + self._busy_timeout_s)
            tx = Tx(db, self._clock(), self._uptime())
            for job in jobs:
                try:
                    job.run(tx)
                except Exception as error:
                    if _concerns_all(error):
                        raise
                    db.execute("ROLLBACK")
                    job.done(error, Stored.NO)
                    return [other for other in jobs if other is not job]
            tx.flush()
            stored = Stored.UNKNOWN
            db.execute("COMMIT")
        except Exception as error:
            if code_of(error) != sqlite3.SQLITE_IOERR:
                stored = Stored.NO  # only a failed write or sync leaves doubt about a commit
            if not is_busy(error):
                self._disconnect()
            for job in jobs:
                job.done(error, stored)
            return []
        for job in jobs:
            job.done(None, Stored.YES)
        if tx.changed:
            self._announce()
        return []

    def _begin(self, deadline: float) -> sqlite3.Connection:
        """Take the write lock, waiting for other processes. Raises 'busy' at ``deadline``."""
        try:
            while True:
                try:
                    db = self._connected()  # reads, so that it may be in somebody's way too
                    db.execute("BEGIN IMMEDIATE")
                    return db
                except sqlite3.OperationalError as error:
                    if not is_busy(error) or time.monotonic() >= deadline or self._stopping:
                        raise
                # SQLite's own waiting backs off to 0.1 s, which starves one beside a busy process.
                self._crowded_until = time.monotonic() + 1.0
                self._waiting_since = self._waiting_since or time.monotonic()
                time.sleep(random.uniform(0.0002, 0.001))
        finally:
            self._waiting_since = None

    def _connected(self) -> sqlite3.Connection:
        # SQLite would go on writing into a deleted file: every send would 'succeed' and be lost.
        try:
            identity = os.stat(self._path)
        except FileNotFoundError:
            raise self._replaced() from None
        if self._db is None:
            self._db = connect(self._path, timeout_s=0.0)
        elif not os.path.samestat(identity, self._identity):
            raise self._replaced()
        self._identity = identity
        return self._db

    def _replaced(self) -> FileReplaced:
        return FileReplaced(f"{self._path} was deleted or replaced while it was open")

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _concerns_all(error: Exception) -> bool:
    """The file, not the job, is the trouble: the transaction has failed for all its jobs."""
    return isinstance(error, sqlite3.Error) and code_of(error) not in (
        None,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_ERROR,
    )
