"""The file behind SQLite: what cannot be used is refused in words, and what is used is durable."""

from __future__ import annotations

import gc
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import gearshift
from gearshift import errors
from gearshift.embedded.sqlite.schema import APPLICATION_ID
from gearshift.embedded.sqlite.settings import SqliteSettings
from gearshift.embedded.sqlite.store import Store
from gearshift.embedded.sqlite.writer import Call, Tx


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    """The store under a Backend, without channels."""
    opened = Store(SqliteSettings(path=database))
    yield opened
    opened.close()


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
        (_newer, "has schema 99, this Gearshift knows schema 1"),
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


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_folder_that_may_not_be_written_is_refused(config: Path, database: Path) -> None:
    """A read-only folder is a ConfigError that names it, for an ordinary user."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        config.write_text(config.read_text().replace(str(database), f"{folder}/shared.db"))
        settings = gearshift.config.load(config)
        was = os.geteuid()
        if was == 0:  # whom no mode stops
            os.seteuid(65534)
        try:
            with (
                gearshift.open(config=settings) as bus,
                pytest.raises(errors.ConfigError, match="cannot be opened for writing"),
            ):
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
        assert [d.value for d in consumer.iterate(idle_timeout_s=1.0)] == ["before", "after"]


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
