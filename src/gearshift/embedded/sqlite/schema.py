"""The tables, and opening the file.

A message has one row, however many groups there are. Its id is ``log << 40 | offset``: messages of
one log lie together, in order, and a range of ids is a range of a log. A queue is a log too, of one
partition, with a row in ``work`` for each group that has not finished with a message yet; the
message goes with its last row.
"""

from __future__ import annotations

import os
import sqlite3
import time

from gearshift.errors import ConfigError

__all__ = ["base_of", "connect", "prepare"]

APPLICATION_ID = 0x47454152  # "GEAR"
VERSION = 4

#: The first SQLite with RETURNING.
OLDEST_SQLITE = (3, 35, 0)

_OFFSET_BITS = 40

_TABLES = """
CREATE TABLE channel (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    semantics TEXT NOT NULL,
    partitions INTEGER NOT NULL,
    retention_s REAL
);
CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 0,    -- offset of the next message
    at_ms INTEGER NOT NULL DEFAULT 0,   -- when the last one was appended
    UNIQUE (channel, partition)
);
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    key TEXT,
    body BLOB,
    meta BLOB
);
CREATE TABLE consumer_group (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel INTEGER NOT NULL,
    name TEXT NOT NULL,
    session TEXT,                       -- an ephemeral group dies with this session
    UNIQUE (channel, name)
);
CREATE TABLE position (
    grp INTEGER NOT NULL,
    log INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    next INTEGER NOT NULL,
    wanted INTEGER,                     -- the member that should have the partition
    owner INTEGER,                      -- the member that has it
    note TEXT NOT NULL DEFAULT '',      -- core's, see gearshift.driver.Place
    PRIMARY KEY (grp, log)
) WITHOUT ROWID;
CREATE TABLE member (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: it fences off whoever was put out
    grp INTEGER NOT NULL,
    name TEXT NOT NULL,
    session TEXT NOT NULL,
    renewed_at REAL NOT NULL,           -- Tx.uptime
    lease_s REAL NOT NULL DEFAULT 0
);
CREATE INDEX member_of ON member (grp);
CREATE TABLE work (
    grp INTEGER NOT NULL,
    id INTEGER NOT NULL,                -- the message
    key TEXT,
    member INTEGER NOT NULL DEFAULT 0,  -- who holds it, 0: nobody
    due REAL NOT NULL DEFAULT 0,        -- waits until this time, 0: for nothing
    attempt INTEGER NOT NULL DEFAULT 0, -- how many have failed
    handed INTEGER NOT NULL DEFAULT 0,  -- times handed out, counted or not
    lost INTEGER NOT NULL DEFAULT 0,    -- consumers that died with it since: driver.Received
    in_hand INTEGER NOT NULL DEFAULT 0, -- whether the first of them was working on it
    aside INTEGER NOT NULL DEFAULT 0,   -- not looked at by claims: its key waits, see queue
    PRIMARY KEY (grp, id)
) WITHOUT ROWID;
"""

#: For a claim, which with these reads nothing that is not due yet, however much that is: the
#: messages that may be claimed, those set aside, those that keep their key waiting (held, or not
#: due yet), and when the latter are due. Columns that are not searched by save a look into the
#: table.
_INDEXES = """
CREATE INDEX IF NOT EXISTS work_ready ON work (grp, id, key, member, due, aside)
    WHERE member = 0 AND due = 0 AND aside = 0;
CREATE INDEX IF NOT EXISTS work_aside ON work (grp, key, id, aside) WHERE aside = 1;
CREATE INDEX IF NOT EXISTS work_held ON work (grp, key, member) WHERE member > 0;
CREATE INDEX IF NOT EXISTS work_delayed_key ON work (grp, key, due) WHERE due > 0;
CREATE INDEX IF NOT EXISTS work_due ON work (grp, due) WHERE due > 0;
"""

#: Statements that lead from a version to the next one. Version 1 counted an attempt as soon as a
#: message was handed out. The leases of version 2 ended at a time of the wall clock, and version 3
#: takes them for those of an earlier start of the machine: over.
_MIGRATIONS = {
    1: """
ALTER TABLE work ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE work ADD COLUMN in_hand INTEGER NOT NULL DEFAULT 0;
UPDATE work SET attempt = attempt - 1 WHERE member > 0;
""",
    2: """
ALTER TABLE member RENAME COLUMN lease_until TO renewed_at;
ALTER TABLE member ADD COLUMN lease_s REAL NOT NULL DEFAULT 0;
ALTER TABLE position ADD COLUMN note TEXT NOT NULL DEFAULT '';
DROP INDEX work_held;
DROP INDEX work_delayed;
""",
    3: """
ALTER TABLE work ADD COLUMN aside INTEGER NOT NULL DEFAULT 0;
DROP INDEX IF EXISTS work_ready;
""",
}


def base_of(log: int) -> int:
    """The id of offset 0 of ``log``; ``base_of(log + 1)`` is the end of its ids."""
    return log << _OFFSET_BITS


def connect(path: str, *, timeout_s: float) -> sqlite3.Connection:
    """A connection to a file that ``prepare`` has seen. The caller keeps it to one thread a time.

    ``synchronous = FULL`` syncs the write-ahead log at every commit: what was committed is on disk.
    """
    db = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 2000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("PRAGMA cache_size = -16000")
    except sqlite3.Error:
        db.close()
        raise
    return db


def prepare(path: str, *, timeout_s: float) -> None:
    """Make folder, file and tables where missing.

    Raises ConfigError for another program's database, one of a newer Gearshift, or an SQLite that
    is too old; sqlite3.Error or OSError if the file cannot be used.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(
            f"this Python has SQLite {sqlite3.sqlite_version}, and 3.35 or later is needed",
            hint="use another build of Python, or backend = 'memory' or a broker",
        )
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    db = connect(path, timeout_s=timeout_s)
    try:
        db.execute("BEGIN")  # or what is read at first is older than what is read next
        is_current = _is_current(db, path)
        db.execute("ROLLBACK")
        if not is_current:
            _use_wal(db, path, timeout_s)
            _create(db, path)
    finally:
        db.close()


def _is_current(db: sqlite3.Connection, path: str) -> bool:
    """True if there is nothing to do; False for a new or older file; ConfigError for what is not
    ours."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    if application == APPLICATION_ID and version == VERSION:
        return True
    if application == APPLICATION_ID and version in _MIGRATIONS:
        return False
    if application == APPLICATION_ID:
        raise ConfigError(
            f"path: {path} has schema {version}, this Gearshift knows schema {VERSION}",
            hint="upgrade gearshift, or use another path",
        )
    if version or application or db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise ConfigError(
            f"path: {path} is the database of another program", hint="use a path of Gearshift's own"
        )
    return False


def _use_wal(db: sqlite3.Connection, path: str, timeout_s: float) -> None:
    # SQLite does not apply its busy timeout when two processes switch a new file at once.
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.005)
            continue
        if mode != "wal":
            raise ConfigError(
                f"path: {path} is on a file system without write-ahead logging",
                hint="use a path on a local disk",
            )
        return


def _create(db: sqlite3.Connection, path: str) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _is_current(db, path):  # another process may have been quicker
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            steps = [_MIGRATIONS[v] for v in range(version, VERSION)] if version else [_TABLES]
            for statement in ";".join([*steps, _INDEXES]).split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
