"""Handlers that stand all that their profile may do to them."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from prove.faulty import PAYMENTS, STATUSES, run
from prove.subject import Built, producers, subject

import gearshift
from gearshift import Delivery
from gearshift.testing.prove import Example


@subject("rabbitmq", "queue")
def id_and_effect_in_one_transaction() -> Built:
    """Notes the id in the transaction of the effect."""
    app, file = gearshift.App(), Path(tempfile.mkdtemp()) / "paid.db"
    run("create table seen (id text primary key); create table paid (cents int)", file)

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        with closing(sqlite3.connect(file)) as db, db:
            if db.execute("insert or ignore into seen values (?)", [delivery.id]).rowcount:
                db.execute("insert into paid values (?)", [cents])

    def paid() -> list[Any]:
        with closing(sqlite3.connect(file)) as db:
            return db.execute("select sum(cents) from paid").fetchall()

    return Built(
        app=app,
        state=paid,
        reset=lambda: run("delete from seen; delete from paid", file),
        examples=PAYMENTS,
    )


@subject("kafka", "stream")
def upsert_by_key() -> Built:
    """Sets a key's value, and a stream repeats a key in order."""
    app, table = gearshift.App(), {}

    @app.handler("prices")
    def keep(price: int, delivery: Delivery[Any]) -> None:
        table[delivery.key] = price

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("rabbitmq", "queue")
def version_check() -> Built:
    """Drops what is older than what it has."""
    app, table = gearshift.App(), {}

    @app.handler("prices")
    def keep(price: list[int], delivery: Delivery[Any]) -> None:
        table[delivery.key] = max(price, table.get(delivery.key, [0, 0]))

    examples = [("ada", [1, 5]), ("ada", [2, 3]), ("bob", [1, 7])]
    return Built(app=app, state=lambda: table, examples=examples)


@subject("kafka", "queue")
def version_check_on_a_share_group() -> Built:
    """Drops what is older, where the broker keeps no order at all."""
    return version_check()


@subject("rabbitmq", "queue")
def sends_under_an_id_made_of_the_first() -> Built:
    """What it sends again, its readers can tell from what is new."""
    app, table, producer = gearshift.App(), {}, producers()

    @app.handler("orders")
    def invoice(order: str, delivery: Delivery[Any]) -> None:
        table[delivery.id] = order
        producer("mails").send(order, id=f"{delivery.id}-mail")

    return Built(app=app, state=lambda: table, examples=STATUSES[:2])


@subject("kafka", "stream")
def outbox() -> Built:
    """Writes what is to be sent beside the effect, and sends what stands there."""
    app, table, outbox, producer = gearshift.App(), {}, {}, producers()

    @app.handler("orders")
    def invoice(order: str, delivery: Delivery[Any]) -> None:
        if delivery.id not in table:
            _ = table.update({delivery.id: order}), outbox.update({delivery.id: order})  # one step
        for id, mail in sorted(outbox.items()):
            producer("mails").send(mail, id=f"{id}-mail")

    return Built(app=app, state=lambda: (table, outbox), examples=STATUSES[:2])


@subject("rabbitmq", "queue")
def atomic_increment() -> Built:
    """Adds in one step, for each id once, on eight threads."""
    app, table = gearshift.App(), {}

    @app.handler("payments", concurrency=8)
    def add(cents: int, delivery: Delivery[Any]) -> None:
        table.setdefault(delivery.id, cents)

    return Built(app=app, state=lambda: sum(table.values()), examples=PAYMENTS)


@subject("kafka", "stream")
def lock_around_a_sum() -> Built:
    """Reads and writes under the lock of the one process that there is."""
    app, table, seen, lock = gearshift.App(), {"total": 0}, set[str](), threading.Lock()

    @app.handler("payments", concurrency=8)
    def add(cents: int, delivery: Delivery[Any]) -> None:
        with lock:
            if delivery.id in seen:
                return
            before = table["total"]
            _ = table.update(total=before + cents), seen.add(delivery.id)  # one step

    return Built(app=app, state=lambda: (table, sorted(seen)), examples=PAYMENTS)


@subject("kafka", "stream")
def set_of_names() -> Built:
    """Adds a name to a set, which is the same twice."""
    app, names = gearshift.App(), set[str]()

    @app.handler("names")
    async def register(name: str) -> None:
        names.add(name)

    return Built(app=app, state=lambda: sorted(names), examples=STATUSES)


@subject("kafka", "queue")
def largest() -> Built:
    """Keeps the largest, whatever the order."""
    app, table = gearshift.App(), {"most": 0}

    @app.handler("prices")
    def keep(price: int) -> None:
        table["most"] = max(price, table["most"])

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("kafka", "stream")
def steps_of_a_key() -> Built:
    """Goes from one status to the next, which come in order, and again in order."""
    app, table = gearshift.App(), {}

    @app.handler("orders")
    def step(status: str, delivery: Delivery[Any]) -> None:
        if status == "placed":
            table.setdefault(delivery.key, "placed")
        elif delivery.key in table:
            table[delivery.key] = "paid"

    return Built(app=app, state=lambda: table, examples=STATUSES)


@subject("rabbitmq", "queue", processes=1)
def one_consumer_of_a_queue() -> Built:
    """Counts on the order of a queue that one process empties, and on no copy being new."""
    app, table, seen = gearshift.App(), {}, set[str]()

    @app.handler("orders")
    def keep(status: str, delivery: Delivery[Any]) -> None:
        if delivery.id not in seen:
            _ = table.update({delivery.key: status}), seen.add(delivery.id)  # one transaction

    return Built(app=app, state=lambda: (table, sorted(seen)), examples=STATUSES)


@subject("kafka", "queue")
def waits_for_what_must_come_first() -> Built:
    """Asks for another try until the earlier message was there."""
    app, table = gearshift.App(), {}

    @app.handler("orders")
    def step(status: str, delivery: Delivery[Any]) -> None:
        if status == "placed":
            table.setdefault(delivery.key, "placed")
        elif delivery.key not in table:
            raise gearshift.Retry(60)
        else:
            table[delivery.key] = "paid"

    return Built(app=app, state=lambda: table, examples=STATUSES[:2])


@subject("rabbitmq", "queue")
def rejects_what_is_wrong() -> Built:
    """Moves to the dead letters what cannot be handled, and only that."""
    app, table = gearshift.App(), {}

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if cents < 5:
            raise gearshift.Reject("too little")
        table[delivery.id] = cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("rabbitmq", "queue")
def tasks_that_write_by_id() -> Built:
    """Sixteen tasks, each of which writes its own row at once."""
    app, table = gearshift.App(), {}

    @app.handler("payments", concurrency=16)
    async def add(cents: int, delivery: Delivery[Any]) -> None:
        await asyncio.sleep(0)
        table[delivery.id] = cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("kafka", "stream")
def deletes() -> Built:
    """Deletes what may be gone already."""
    app, table = gearshift.App(), {"ada": 1, "bob": 2, "eve": 3}

    @app.handler("gone")
    def delete(name: str) -> None:
        table.pop(name, None)

    return Built(app=app, state=lambda: table, examples=[("ada", "ada"), ("bob", "bob")])


@subject("rabbitmq", "queue")
def timer_that_looks() -> Built:
    """A timer and a payment end alike, whichever comes first."""
    app, table = gearshift.App(), {}

    @app.handler("orders")
    def pay(order: str) -> None:
        table[order] = "paid"

    @app.handler("timers")
    def expire(order: str) -> None:
        table.setdefault(order, "expired")

    examples = [Example("o1", "orders"), Example("o1", "timers")]
    return Built(app=app, state=lambda: table, examples=examples)


@subject("kafka", "stream")
def cache_in_memory() -> Built:
    """Keeps in memory what it can read again."""
    app, table = gearshift.App(), {}

    @functools.cache
    def rate(currency: str) -> int:
        return len(currency)

    @app.handler("prices")
    def keep(currency: str, delivery: Delivery[Any]) -> None:
        table[delivery.id] = rate(currency)

    return Built(app=app, state=lambda: table, examples=STATUSES)


@subject("sqlite", "queue")
def two_groups_of_a_channel() -> Built:
    """Each group has its own table, and each id a row."""
    app, bills, audit = gearshift.App(), {}, {}

    @app.handler("payments", group="billing")
    def bill(cents: int, delivery: Delivery[Any]) -> None:
        bills[delivery.id] = cents

    @app.handler("payments", group="audit")
    def note(cents: int, delivery: Delivery[Any]) -> None:
        audit[delivery.id] = cents

    return Built(app=app, state=lambda: (bills, audit), examples=PAYMENTS)


@subject("redis", "queue")
def several_effects_by_id() -> Built:
    """Each effect of a message stands under its id, and so may be repeated."""
    app, bills, points = gearshift.App(), {}, {}

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        bills[delivery.id] = cents
        points[delivery.id] = cents // 2

    return Built(app=app, state=lambda: (bills, points), examples=PAYMENTS)
