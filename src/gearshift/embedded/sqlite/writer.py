"""The one writer of a Backend: what waits is committed together, by its thread or a lone sender.

A commit costs an fsync whether it holds one message or a thousand, so the thread takes all that is
waiting (publishes, claims, settlements, of any driver) into one transaction, and tells each job how
it ended after the commit. A lone job is committed at once: nothing waits for company, and a sender
whose job is the only one commits it itself (docs/design/0040). One at a time writes, so that only
other processes contend for SQLite's write lock.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from gearshift.driver import Stored
from gearshift.embedded.sqlite.errors import FileReplaced, code_of, is_busy
from gearshift.embedded.sqlite.schema import base_of, connect
from gearshift.errors import Closed
from gearshift.message import Key

__all__ = ["Call", "Job", "Tx", "Writer", "identity_of"]

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
    """Commits jobs in order. ``_state`` guards whether it takes further ones.

    Whoever has ``_turn``, the thread or a sender, takes jobs and uses the connection.
    """

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
        self._jobs: deque[Job] = deque()
        self._called = threading.Event()  # the thread has jobs to take, or has to end
        self._turn = threading.Lock()
        self._state = threading.Lock()
        self._stopping = False
        self._db: sqlite3.Connection | None = None
        self._identity = os.stat(path)
        self._crowded_until = 0.0
        self._waiting_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="gearshift-sqlite", daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, served: bool = False) -> None:
        """Take a job and return at once. If it is ``served``, call ``serve`` next. Any thread."""
        with self._state:
            if not self._stopping:
                self._jobs.append(job)
                if not served:
                    self._called.set()
                return
        job.done(Closed("the database was closed"), Stored.NO)

    def serve(self) -> None:
        """Commit the only job on this thread, if nobody is in the way, or call the own thread."""
        try:
            if self._crowded_until < time.monotonic() and not self._turn.locked():
                with self._turn:
                    if len(self._jobs) == 1:
                        self._jobs.extendleft(self._attempt([self._jobs.popleft()], waits=False))
        finally:
            if self._jobs:
                self._called.set()

    def waiting_s(self) -> float:
        """Seconds for which other processes have kept the lock that this one wants. Any thread."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """Finish what was submitted, and end the thread."""
        with self._state:
            self._stopping = True
        self._called.set()
        self._thread.join()

    # ── the thread ──

    def _work(self) -> None:
        more = True
        while more:
            self._called.wait()
            self._called.clear()
            more = not self._stopping
            with self._turn:
                while self._jobs:
                    jobs = self._collect()
                    while jobs:
                        jobs = self._attempt(jobs)
                    if self._crowded_until > time.monotonic() and more:
                        time.sleep(_COURTESY_S)
        with self._turn:
            self._disconnect()

    def _collect(self) -> list[Job]:
        jobs: list[Job] = []
        weight = 0
        while self._jobs and weight < _MOST_WEIGHT:
            jobs.append(self._jobs.popleft())
            weight += jobs[-1].weight
        return jobs

    # ── in turn ──

    def _attempt(self, jobs: list[Job], *, waits: bool = True) -> list[Job]:
        """Commit ``jobs`` in one transaction; returns those to try again.

        They are the others if one has failed, or all if another process has the lock and this one
        does not wait (``waits``). A sender that is interrupted leaves its job to the thread.
        """
        stored = Stored.NO
        try:
            db = self._begin(jobs[0].submitted_at + self._busy_timeout_s if waits else 0.0)
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
            if is_busy(error) and not waits:
                return jobs
            if code_of(error) != sqlite3.SQLITE_IOERR:
                stored = Stored.NO  # only a failed write or sync leaves doubt about a commit
            if not is_busy(error):
                self._disconnect()
            for job in jobs:
                job.done(error, stored)
            return []
        except BaseException:  # a sender is interrupted, perhaps just behind its commit
            if stored is Stored.UNKNOWN and not db.in_transaction:
                jobs[0].done(None, Stored.YES)
            else:
                self._disconnect()
                self._jobs.extendleft(jobs)
            raise
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
        self._identity = identity_of(self._path, self._identity if self._db else None)
        if self._db is None:
            self._db = connect(self._path, timeout_s=0.0)
        return self._db

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def identity_of(path: str, known: os.stat_result | None = None) -> os.stat_result:
    """What tells the file at ``path`` from another one.

    Raises FileReplaced if there is none, or if it is not the one that is ``known``.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise FileReplaced(path) from None
    if known is not None and not os.path.samestat(found, known):
        raise FileReplaced(path)
    return found


def _concerns_all(error: Exception) -> bool:
    """The file, not the job, is the trouble: the transaction has failed for all its jobs."""
    return isinstance(error, sqlite3.Error) and code_of(error) not in (
        None,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_ERROR,
    )
