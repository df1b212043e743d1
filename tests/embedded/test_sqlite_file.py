"""The file behind SQLite: what cannot be used is refused in words, and what is used is durable."""

from __future__ import annotations

import gc
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from support.waiting import drain, take, until

import gearshift
from gearshift import errors
from gearshift.embedded.sqlite import schema
from gearshift.embedded.sqlite.schema import APPLICATION_ID, prepare
from gearshift.embedded.sqlite.settings import Settings
from gearshift.embedded.sqlite.store import Store
from gearshift.embedded.sqlite.writer import Call, Tx


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    """The store under a Backend, without channels."""
    opened = Store(Settings(path=database))
    yield opened
    opened.close()


# ── files of earlier versions ──

#: The tables of version 1, whose version 2 added two columns.
_VERSION_1 = """
CREATE TABLE channel (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    semantics TEXT NOT NULL, partitions INTEGER NOT NULL, retention_s REAL);
CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER NOT NULL,
    partition INTEGER NOT NULL, next INTEGER NOT NULL DEFAULT 0, at_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (channel, partition));
CREATE TABLE message (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, key TEXT, body BLOB,
    meta BLOB);
CREATE TABLE consumer_group (id INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER NOT NULL,
    name TEXT NOT NULL, session TEXT, UNIQUE (channel, name));
CREATE TABLE position (grp INTEGER NOT NULL, log INTEGER NOT NULL, partition INTEGER NOT NULL,
    next INTEGER NOT NULL, wanted INTEGER, owner INTEGER, PRIMARY KEY (grp, log)) WITHOUT ROWID;
CREATE TABLE member (id INTEGER PRIMARY KEY AUTOINCREMENT, grp INTEGER NOT NULL,
    name TEXT NOT NULL, session TEXT NOT NULL, lease_until REAL NOT NULL);
CREATE INDEX member_of ON member (grp);
CREATE TABLE work (grp INTEGER NOT NULL, id INTEGER NOT NULL, key TEXT,
    member INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0, handed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (grp, id)
    ) WITHOUT ROWID;
CREATE INDEX work_held ON work (grp, member, key) WHERE member > 0;
CREATE INDEX work_delayed ON work (grp, due, key) WHERE due > 0;
INSERT INTO channel VALUES (1, 'work', 'queue', 1, NULL);
INSERT INTO log VALUES (1, 1, 0, 3, 0);
INSERT INTO consumer_group VALUES (1, 1, 'workers', NULL);
INSERT INTO message VALUES (1 << 40, 0, 'a', x'68656c64', x'9790c0c0c0c0c0c0');
INSERT INTO message VALUES ((1 << 40) + 1, 0, 'b', x'647565', x'9790c0c0c0c0c0c0');
INSERT INTO message VALUES ((1 << 40) + 2, 0, 'c', x'7265616479', x'9790c0c0c0c0c0c0');
"""

#: A consumer that died with 'held', and a retry whose time has come; in both versions.
_USED = """
INSERT INTO member VALUES (7, 1, 'dead', 'dead', 1e10);
UPDATE work SET member = 7, handed = 1 WHERE key = 'a';
UPDATE work SET due = 1.0, attempt = 1, handed = 1 WHERE key = 'b';
"""


#: What version 4 has made of it.
_BACK_TO_VERSION_3 = """
DROP INDEX work_ready;
DROP INDEX work_aside;
ALTER TABLE work DROP COLUMN aside;
CREATE INDEX work_ready ON work (grp, id, key, member, due) WHERE member = 0 AND due = 0;
PRAGMA user_version = 3;
"""

#: And version 3 before it.
_BACK_TO_VERSION_2 = f"""
{_BACK_TO_VERSION_3}
ALTER TABLE position DROP COLUMN note;
ALTER TABLE member RENAME COLUMN renewed_at TO lease_until;
ALTER TABLE member DROP COLUMN lease_s;
DROP INDEX work_ready;
DROP INDEX work_held;
DROP INDEX work_delayed_key;
DROP INDEX work_due;
CREATE INDEX work_held ON work (grp, member, key) WHERE member > 0;
CREATE INDEX work_delayed ON work (grp, due, key) WHERE due > 0;
PRAGMA user_version = 2;
"""


def _layout(path: Path) -> dict[str, object]:
    """Columns of the tables, and the statements that made the indexes."""
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        return {
            name: sql if kind == "index" else db.execute(f"PRAGMA table_xinfo({name})").fetchall()
            for kind, name, sql in db.execute(query).fetchall()
        }


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_earlier_version_is_used_as_it_is(
    config: Path, database: Path, tmp_path: Path, version: int
) -> None:
    """Its messages come with their attempts; it has the layout of a new file then."""
    with closing(sqlite3.connect(database)) as db:
        db.executescript(_VERSION_1)
        db.execute("INSERT INTO work (grp, id, key) SELECT 1, id, key FROM message")
        if version == 2:
            db.execute("ALTER TABLE work ADD COLUMN lost INTEGER NOT NULL DEFAULT 0")
            db.execute("ALTER TABLE work ADD COLUMN in_hand INTEGER NOT NULL DEFAULT 0")
        db.executescript(_USED)
        if version == 1:  # counted an attempt when a message was handed out
            db.execute("UPDATE work SET attempt = 1 WHERE member > 0")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    attempts = {}
    with gearshift.open(config) as bus, bus.consumer("work", group="workers") as consumer:
        for _ in range(3):
            (delivery,) = consumer.receive(timeout_s=10)
            attempts[delivery.body] = delivery.attempt
            delivery.ack()
    assert attempts == {b"held": 2, b"due": 2, b"ready": 1}
    new = tmp_path / "new.db"
    prepare(str(new), timeout_s=1)
    assert _layout(database) == _layout(new)


# ── what cannot be used ──


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")


def _foreign_with_a_mark(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 4711")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 99")


def _text(path: Path) -> None:
    path.write_text("this is a letter to my aunt, and no database at all\n" * 100)


def _folder_is_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_foreign, "is the database of another program"),
        (_foreign_with_a_mark, "is the database of another program"),
        (_newer, "has schema 99, this Gearshift knows schema 4"),
        (_text, "is not an SQLite database"),
        (_folder_is_a_file, "path: cannot be used"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    config: Path, database: Path, spoil: Callable[[Path], None], says: str
) -> None:
    """One ConfigError that names the setting and the fix; not a byte of the file changes."""
    folder = database.parent / "inner"
    folder.mkdir()
    config.write_text(config.read_text().replace(str(database), str(folder / "shared.db")))
    spoil(folder / "shared.db")
    before = (folder / "shared.db").read_bytes() if folder.is_dir() else b""
    with gearshift.open(config) as bus, pytest.raises(errors.ConfigError, match=says) as caught:
        bus.producer("work")
    assert caught.value.hint
    assert "path" in str(caught.value)
    if folder.is_dir():
        assert (folder / "shared.db").read_bytes() == before


@pytest.mark.parametrize("way_back", [_BACK_TO_VERSION_2, _BACK_TO_VERSION_3])
def test_a_file_of_the_release_before_is_used_as_it_is(
    config: Path, database: Path, tmp_path: Path, way_back: str
) -> None:
    """It gets what it lacks, once; messages and positions stay."""
    with gearshift.open(config) as bus:
        producer = bus.producer("log")
        for value in ("first", "second"):
            producer.send(value, key="k")
        with bus.consumer("log") as consumer:
            consumer.receive(1, timeout_s=30)[0].ack()
    with closing(sqlite3.connect(database)) as db:
        db.executescript(way_back)
    for _ in range(2):
        with gearshift.open(config) as bus, bus.consumer("log") as consumer:
            (delivery,) = consumer.receive(10, timeout_s=30)
            assert (delivery.value, delivery.attempt) == ("second", 1)
    prepare(str(tmp_path / "new.db"), timeout_s=1)
    assert _layout(database) == _layout(tmp_path / "new.db")


def test_an_sqlite_that_is_too_old_is_refused(
    config: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of a syntax error; no file is made."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with gearshift.open(config) as bus, pytest.raises(errors.ConfigError, match=r"3\.34\.1.*3\.35"):
        bus.producer("work")
    assert not database.exists()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_folder_that_may_not_be_written_is_refused(config: Path, database: Path) -> None:
    """A read-only folder is a ConfigError that names it, for an ordinary user."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        config.write_text(config.read_text().replace(str(database), f"{folder}/shared.db"))
        with gearshift.open(config) as bus:  # as root, who alone may read where backends are
            was = os.geteuid()
            if was == 0:  # whom no mode stops
                os.seteuid(65534)
            try:
                with pytest.raises(errors.ConfigError, match="cannot be opened for writing"):
                    bus.producer("work")
            finally:
                os.seteuid(was)


def test_a_damaged_file_is_told_apart_from_a_broken_connection(
    bus: gearshift.Bus, config: Path, database: Path
) -> None:
    """Pages overwritten in the middle: BackendFailure, at once and not retried."""
    bus.producer("work").send_many(b"x" * 2000 for _ in range(200))
    bus.close()
    content = bytearray(database.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    database.write_bytes(content)
    with (
        gearshift.open(config) as damaged,
        pytest.raises(errors.BackendFailure, match="damaged") as caught,
    ):
        damaged.producer("work").send(1, timeout_s=10)
    assert not caught.value.retryable


def test_a_full_disk_refuses_the_message_and_keeps_the_rest(
    bus: gearshift.Bus, database: Path
) -> None:
    """SQLITE_FULL: PublishRefused, retryable, nothing of it stored; once there is room it goes."""
    producer = bus.producer("work")
    producer.send("before")
    store: Store = bus._backend._store  # type: ignore[attr-defined]
    pages = store.write(lambda tx: tx.db.execute("PRAGMA page_count").fetchone()[0])
    store.write(lambda tx: tx.db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
    with pytest.raises(errors.PublishRefused, match="disk is full") as caught:
        producer.send(b"x" * 100_000)
    assert caught.value.retryable
    producer.send("after")
    with bus.consumer("work", group="workers") as consumer:
        assert drain(consumer, 2) == ["before", "after"]


def test_a_file_that_is_deleted_while_open_is_noticed(bus: gearshift.Bus, database: Path) -> None:
    """No send 'succeeds' into a deleted file: it is refused, and says why."""
    producer = bus.producer("work")
    producer.send(1)
    database.unlink()
    with pytest.raises(errors.ConnectionFailed, match="deleted or replaced"):
        producer.send(2, timeout_s=1.0)


def test_a_file_that_is_replaced_while_open_is_changed_to(
    bus: gearshift.Bus, config: Path, database: Path
) -> None:
    """What is sent after another file took its place is stored in that one."""
    producer = bus.producer("work")
    producer.send(1)
    for part in database.parent.glob("shared.db*"):
        if part.is_file():
            part.rename(part.with_name(f"old-{part.name}"))
    with gearshift.open(config) as other, other.consumer("work", group="workers") as consumer:
        producer.send(2)
        assert consumer.receive(timeout_s=10)[0].value == 2


@pytest.mark.parametrize("channel", ["work", "log"])
def test_a_consumer_changes_to_the_file_that_took_the_place_of_its_own(
    bus: gearshift.Bus, config: Path, database: Path, channel: str
) -> None:
    """However long nothing comes; another consumer there may have the same number."""
    with bus.consumer(channel, group="workers") as consumer:
        consumer.ready()
        for part in database.parent.glob("shared.db*"):
            if part.is_file():
                part.rename(part.with_name(f"old-{part.name}"))
        with gearshift.open(config) as other, other.consumer(channel, group="workers"):
            assert until(lambda: bus.stats().receiving[0].reconnects)
        with gearshift.open(config) as other:
            other.producer(channel).send(2)
            assert take(consumer, 1)[0].value == 2


# ── what is promised of the file ──


def test_what_was_committed_is_on_disk(store: Store) -> None:
    """The writer's connection has synchronous = FULL, in write-ahead mode."""
    pragmas = [
        store.write(lambda tx, name=name: tx.db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("synchronous", "journal_mode")
    ]
    assert pragmas == [2, "wal"]


def test_what_waits_is_committed_together(store: Store) -> None:
    """Twenty jobs that come during another one's transaction share the next commit."""
    statements: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def first(tx: Tx) -> None:
        entered.set()
        assert leave.wait(30)
        tx.db.set_trace_callback(statements.append)

    calls = [Call(first)]
    writer = store.writer()
    writer.submit(calls[0])
    assert entered.wait(30)
    calls += [Call(lambda tx: tx.db.execute("INSERT INTO log (channel, partition) "
                                            "SELECT 1, COUNT(*) FROM log"))
              for _ in range(20)]  # fmt: skip
    for call in calls[1:]:
        writer.submit(call)
    leave.set()
    for call in calls:
        call.result()
    assert [text for text in statements if text == "COMMIT"] == ["COMMIT"] * 2
    assert sum(text.startswith("INSERT") for text in statements) == 20


def test_one_job_that_fails_takes_no_other_with_it(store: Store) -> None:
    """Jobs of the same transaction are committed all the same, the failed one is undone."""
    entered, leave = threading.Event(), threading.Event()

    def insert(tx: Tx, name: str) -> None:
        tx.db.execute(
            "INSERT INTO channel (name, semantics, partitions) VALUES (?, 'queue', 1)", (name,)
        )

    def wait(tx: Tx) -> None:
        entered.set()
        assert leave.wait(30)

    def fail(tx: Tx) -> None:
        insert(tx, "half")
        raise ValueError("no")

    blocker, bad = Call(wait), Call(fail)
    good = [Call(lambda tx, n=n: insert(tx, f"c{n}")) for n in range(4)]
    writer = store.writer()
    writer.submit(blocker)
    assert entered.wait(30)
    for call in (*good[:2], bad, *good[2:]):
        writer.submit(call)
    leave.set()
    for call in good:
        call.result()
    with pytest.raises(ValueError, match="no"):
        bad.result()
    names = store.write(lambda tx: tx.db.execute("SELECT name FROM channel").fetchall())
    assert sorted(names) == [("c0",), ("c1",), ("c2",), ("c3",)]


# ── a lone sender commits itself ──


def test_a_lone_job_is_committed_by_who_serves(store: Store) -> None:
    """No other thread has to be woken for it."""
    call = Call(lambda tx: threading.get_ident())
    store.writer().submit(call, served=True)
    store.writer().serve()
    assert call.result() == threading.get_ident()


def test_who_finds_the_file_locked_leaves_its_job_to_the_thread(
    store: Store, database: Path
) -> None:
    """It returns at once, as its deadline may be before that of the lock."""
    call = Call(lambda tx: threading.get_ident())
    writer = store.writer()
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer.submit(call, served=True)
        writer.serve()
        other.execute("ROLLBACK")
    assert call.result() == writer._thread.ident


def test_who_comes_while_another_commits_leaves_its_job_to_the_thread(store: Store) -> None:
    """It does not wait for its turn, and those that come together share a commit."""
    entered, leave = threading.Event(), threading.Event()

    def first(tx: Tx) -> None:
        entered.set()
        assert leave.wait(30)

    writer = store.writer()
    blocker, call = Call(first), Call(lambda tx: threading.get_ident())
    writer.submit(blocker)
    assert entered.wait(30)
    writer.submit(call, served=True)
    writer.serve()
    leave.set()
    assert call.result() == writer._thread.ident


class _Interrupting:
    """A connection on which a thread is interrupted once, behind ``statement``."""

    def __init__(self, db: sqlite3.Connection, statement: str) -> None:
        self._db = db
        self._statement = statement

    def execute(self, text: str, *arguments: Any) -> Any:
        done = self._db.execute(text, *arguments)
        if text == self._statement:
            self._statement = ""
            raise KeyboardInterrupt
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_what_an_interrupted_sender_has_begun_is_stored_once(
    bus: gearshift.Bus, statement: str
) -> None:
    """By the writer's thread if it was not committed yet; what is sent next comes behind it."""
    producer = bus.producer("work")
    producer.send("first")
    store: Store = bus._backend._store  # type: ignore[attr-defined]
    writer = store.writer()
    assert writer._db is not None
    writer._db = _Interrupting(writer._db, statement)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        producer.send("second")
    producer.send("third")
    assert store.write(lambda tx: tx.db.execute("SELECT count(*) FROM message").fetchone()) == (3,)
    with bus.consumer("work", group="workers") as consumer:
        assert drain(consumer, 3) == ["first", "second", "third"]


def test_closing_under_load_leaves_nothing_behind(config: Path, database: Path) -> None:
    """No thread, no descriptor, no sign of life, no lock; what was confirmed is there."""
    gc.collect()
    threads, descriptors = set(threading.enumerate()), set(os.listdir("/proc/self/fd"))
    bus = gearshift.open(config)
    producers = [bus.producer(channel) for channel in ("work", "log")]
    consumers = [bus.consumer(c, group="workers", prefetch=10) for c in ("work", "work", "log")]
    futures = []
    try:
        for number in range(2000):
            futures += [producer.submit(number) for producer in producers]
        for consumer in consumers:
            assert consumer.receive(timeout_s=20)
    finally:
        bus.close()
    assert all(future.result(0) for future in futures)
    assert set(threading.enumerate()) <= threads
    assert set(os.listdir("/proc/self/fd")) <= descriptors
    assert not os.listdir(f"{database}.sessions")
    with closing(sqlite3.connect(database, timeout=0)) as db:
        db.execute("BEGIN EXCLUSIVE")
        assert db.execute("SELECT COUNT(*) FROM message").fetchone() == (4000,)
        assert db.execute("SELECT COUNT(*) FROM work WHERE member > 0").fetchone() == (0,)
        assert db.execute("SELECT COUNT(*) FROM member").fetchone() == (0,)


def test_a_file_that_is_busy_when_the_writer_connects_is_waited_for(
    store: Store, database: Path
) -> None:
    """The last process that closes a file locks it even against readers, for a moment."""
    writer = store.writer()  # it connects with its first job
    call = Call(lambda tx: tx.db.execute("SELECT count(*) FROM channel").fetchone()[0])
    with closing(sqlite3.connect(database)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("CREATE TABLE of_another (number)")  # the lock stays until it is closed
        writer.submit(call)
        time.sleep(0.3)  # so long the writer finds it busy
    assert call.result() == 0


def test_a_file_that_another_process_makes_meanwhile_is_not_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks at it: it was taken for one of another version, or another program's."""
    path = str(tmp_path / "new.db")
    connect = schema.connect
    is_made = False

    def make(statement: str) -> None:
        nonlocal is_made
        if "application_id" in statement and not is_made:
            is_made = True
            with suppress(sqlite3.OperationalError):  # it has to wait
                prepare(path, timeout_s=0.1)

    def watched(path: str, *, timeout_s: float) -> sqlite3.Connection:
        db = connect(path, timeout_s=timeout_s)
        db.set_trace_callback(make)
        return db

    monkeypatch.setattr(schema, "connect", watched)
    prepare(path, timeout_s=1)
    assert is_made
