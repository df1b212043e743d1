"""Stories played on a broker, for each misfortune that can be: here on SQLite, which needs none."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from prove.faulty import (
    acks_first,
    buffered_in_memory,
    goes_by_redelivered_where_it_is_exact,
    late_timer,
    order_among_keys,
    partial_batch,
    remembers_the_last_id_only,
    two_sends_without_order,
)
from prove.subject import collected, counted_around

import gearshift
from gearshift import Delivery
from gearshift.testing.prove import Example, prove

CASES = [
    (remembers_the_last_id_only, ["lost ack"]),
    (buffered_in_memory, ["crash after"]),
    (partial_batch, ["crash inside"]),
    (acks_first, ["crash inside"]),
    (goes_by_redelivered_where_it_is_exact, ["duplicate"]),
    (order_among_keys, ["reordered"]),
    (late_timer, ["reordered", "overlap"]),
    (two_sends_without_order, ["reordered", "overlap"]),
]


@pytest.mark.parametrize(("build", "rules"), CASES, ids=[build.__name__ for build, _ in CASES])
def test_a_story_is_seen_again(build: object, rules: list[str], tmp_path: Path) -> None:
    """What breaks handlers in a proof breaks them on a broker."""
    subject = next(one for one in collected() if one.build is build)
    profile = {"backend": "sqlite", "path": str(tmp_path / "played.db")}
    played = {one.rule: str(one.on_broker) for one in subject.proof(150, profile).stories}
    for rule in rules:
        assert played[rule].startswith("seen on SQLite"), played


def test_a_state_that_dies_with_its_process_is_not_judged(tmp_path: Path) -> None:
    """A database in memory has no row of what the killed process did: that proves nothing."""
    app, db = gearshift.App(), sqlite3.connect(":memory:", check_same_thread=False)
    db.executescript("create table seen (id text primary key); create table paid (cents int)")

    @app.handler("payments")
    def pay(cents: int, delivery: Delivery[int]) -> None:
        if db.execute("select 1 from seen where id = ?", [delivery.id]).fetchone():
            return
        db.execute("insert into paid values (?)", [cents])
        db.execute("insert into seen values (?)", [delivery.id])

    found = prove(
        app,
        state=lambda: db.execute("select * from paid").fetchall(),
        reset=lambda: db.executescript("delete from seen; delete from paid"),
        config={"profiles": {"p": {"backend": "sqlite", "path": str(tmp_path / "played.db")}}},
        cases=200,
        examples=[1],
        on_broker=True,
    )
    (story,) = [one for one in found.stories if one.rule == "crash inside"]
    assert str(story.on_broker).startswith("not tried: what state() shows is in"), story


def test_a_dead_letter_is_seen_too(tmp_path: Path) -> None:
    """A handler that rejects what it has seen ends otherwise, though its state does not show it."""
    app, table = gearshift.App(), {}

    @app.handler("payments")
    def once(cents: int, delivery: Delivery[int]) -> None:
        if delivery.id in table:
            raise gearshift.Reject("seen")
        table[delivery.id] = cents

    settings = {"profiles": {"p": {"backend": "sqlite", "path": str(tmp_path / "played.db")}}}
    found = prove(app, state=lambda: table, config=settings, cases=60, examples=[1], on_broker=True)
    assert str(found.stories[0].on_broker).endswith(": dead letters: m1 of payments"), found


def test_what_handlers_send_each_other_is_played_too(tmp_path: Path) -> None:
    """Also under an id of chance, to two groups of a channel, and what reads the dead letters."""
    app, stock, seen, told = gearshift.App(), {"left": 9}, set[object](), set[str | None]()

    @app.handler("orders")
    def take(parts: list[int], delivery: Delivery[Any], bus: gearshift.Bus) -> None:
        if delivery.id not in seen:
            seen.add(delivery.id)
            bus.send("picks", parts)

    @app.handler("orders", group="mails")
    def tell(parts: list[int], delivery: Delivery[Any]) -> None:
        told.add(delivery.id)

    @app.handler("picks")
    def pick(parts: list[int]) -> None:
        raise gearshift.Reject("none left")

    @app.handler("picks.dead")
    async def count(parts: list[int], delivery: Delivery[Any]) -> None:
        if delivery.id in seen:
            return
        for part in parts:
            stock["left"] -= part
        seen.add(delivery.id)

    found = prove(
        app,
        state=lambda: (stock, len(seen), sorted(map(str, told))),
        examples=[Example([1, 2], "orders")],
        config={"profiles": {"p": {"backend": "sqlite", "path": str(tmp_path / "played.db")}}},
        cases=300,
        processes=1,
        on_broker=True,
    )
    (story,) = [one for one in found.stories if one.rule == "crash inside"]
    assert str(story.on_broker).startswith("seen on SQLite"), story


@pytest.mark.parametrize(("concurrency", "rule"), [(1, "lost ack"), (2, "overlap")])
def test_what_an_app_has_around_a_handler_is_played_with_it(
    concurrency: int, rule: str, tmp_path: Path
) -> None:
    """Here it does what the handler would stand by itself."""
    app, table = counted_around(concurrency)
    settings = {"profiles": {"p": {"backend": "sqlite", "path": str(tmp_path / "played.db")}}}
    found = prove(
        app, state=lambda: table, config=settings, cases=60, examples=[1, 2], on_broker=True
    )
    (story,) = [one for one in found.stories if one.rule == rule]
    assert str(story.on_broker).startswith("seen on SQLite"), story
    assert str(story.on_broker).endswith(story.found), story
