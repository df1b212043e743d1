"""A message is handled once by each group, however often it comes: its note is with its effect."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import gearshift
from gearshift import testing
from gearshift.deduplication import TABLE, first_time
from gearshift.errors import UsageError
from native_brokers import PostgreSQL


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """One with the table, made twice, and an account."""
    connection = sqlite3.connect(":memory:")
    for statement in (TABLE, TABLE, "CREATE TABLE account (cents INTEGER)"):
        connection.execute(statement)
    yield connection
    connection.close()


def booked(database: sqlite3.Connection) -> list[int]:
    return [cents for (cents,) in database.execute("SELECT cents FROM account")]


def booking(database: sqlite3.Connection, group: str | None = None) -> gearshift.App:
    """An app whose handler books each payment once, and fails once in the midst of it."""
    app = gearshift.App()
    failures = [ZeroDivisionError()]

    @app.handler("payments", group=group)
    def book(cents: int, delivery: gearshift.Delivery[int]) -> None:
        with database:
            if first_time(database, delivery):
                database.execute("INSERT INTO account VALUES (?)", (cents,))
                if failures:
                    raise failures.pop()

    return app


def test_an_effect_is_there_once(harness: testing.Harness, database: sqlite3.Connection) -> None:
    """Through a failure in its transaction, a lost ack and a copy; other messages are others."""
    app = booking(database)
    harness.lose_acks("payments", count=2)
    harness.send("payments", 250)
    harness.send("payments", 250)
    harness.run(app, raise_on_error=False)
    harness.redeliver(harness.settled("payments")[-1])
    harness.run(app)
    assert booked(database) == [250, 250]
    assert len(harness.settled("payments")) >= 5


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    """A server of this test alone."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def accounts(postgresql: PostgreSQL) -> Iterator[list[psycopg.Connection]]:
    """Two connections to a database with the table and an account."""
    with psycopg.connect(postgresql.url) as one, psycopg.connect(postgresql.url) as two:
        for statement in (TABLE, TABLE, "CREATE TABLE account (cents INTEGER)"):
            one.execute(statement)
        one.commit()
        yield [one, two]


@pytest.mark.broker
def test_an_effect_is_there_once_in_postgresql(
    harness: testing.Harness, accounts: list[psycopg.Connection]
) -> None:
    """Two processes with the same message: one waits for the other, and then does nothing."""
    app = gearshift.App()
    took_part = []

    @app.handler("payments")
    def book(cents: int, delivery: gearshift.Delivery[int]) -> None:
        one, two = accounts

        def elsewhere() -> None:
            with two.transaction():
                took_part.append(first_time(two, delivery))

        other = threading.Thread(target=elsewhere)
        with one.transaction():
            if first_time(one, delivery):
                other.start()
                one.execute("INSERT INTO account VALUES (%s)", (cents,))
        if other.ident is not None:
            other.join()

    harness.lose_acks("payments")
    harness.send("payments", 250)
    harness.run(app)
    assert took_part == [False]
    assert accounts[1].execute("SELECT cents FROM account").fetchall() == [(250,)]


def test_each_group_has_its_own_notes(database: sqlite3.Connection) -> None:
    """What one has handled is new for the other."""
    settings: dict[str, Any] = {
        "profiles": {"dev": {"backend": "memory"}},
        "channels": {"payments": {"groups": ["book", "audit"]}},
    }
    with testing.open(settings=settings) as harness:
        harness.send("payments", 250)
        for group in ("book", "audit", "book"):
            harness.run(booking(database, group), raise_on_error=False)
    assert booked(database) == [250, 250]


def test_a_message_can_be_named_by_what_is_in_it(
    harness: testing.Harness, database: sqlite3.Connection
) -> None:
    """A sender that sends one order twice gives two ids."""
    app = gearshift.App()
    news = []

    @app.handler("payments")
    def book(payment: dict[str, str], delivery: gearshift.Delivery[Any]) -> None:
        news.append(first_time(database, delivery, id=payment["number"]))

    for number in ("a", "b", "a"):
        harness.send("payments", {"number": number})
    harness.run(app)
    assert news == [True, True, False]


def test_a_message_without_an_id_is_refused(
    harness: testing.Harness, database: sqlite3.Connection
) -> None:
    """With the way out; handling it unnoted would be a duplicate that nobody sees."""
    app = booking(database)
    harness.send("payments", 1)
    harness.run(app, raise_on_error=False)
    delivery: Any = type("Foreign", (), {
        "id": None, "channel": "payments", "group": "default", "backend": "rabbitmq",
    })()  # fmt: skip
    with pytest.raises(UsageError, match="has no id"):
        first_time(database, delivery)
