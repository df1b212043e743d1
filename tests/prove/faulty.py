"""Handlers with a fault each, of a kind that is often met."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from prove.subject import Built, producers, subject

import gearshift
from gearshift import Delivery
from gearshift.testing.prove import Example

PAYMENTS = [("ada", 5), ("bob", 7), ("ada", 1)]
STATUSES = [("ada", "placed"), ("ada", "paid"), ("bob", "placed")]


@subject("rabbitmq", "queue", "lost ack")
def read_modify_write() -> Built:
    """Every delivery adds."""
    app, balance = gearshift.App(), {"total": 0}

    @app.handler("payments")
    def add(cents: int) -> None:
        balance["total"] += cents

    return Built(app=app, state=lambda: balance, examples=PAYMENTS)


@subject("kafka", "stream", "lost ack")
def read_modify_write_on_a_stream() -> Built:
    """Every delivery adds, and a stream repeats all behind its position."""
    app, balance = gearshift.App(), {"total": 0}

    @app.handler("payments")
    async def add(cents: int) -> None:
        balance["total"] += cents

    return Built(app=app, state=lambda: balance, examples=PAYMENTS)


@subject("rabbitmq", "queue", "lost ack")
def effect_before_check() -> Built:
    """Looks whether it has seen the message after the effect."""
    app, mails, seen = gearshift.App(), [], set[str]()

    @app.handler("orders")
    def confirm(order: str, delivery: Delivery[Any]) -> None:
        mails.append(order)
        if delivery.id in seen:
            return
        seen.add(str(delivery.id))

    return Built(app=app, state=lambda: (sorted(mails), sorted(seen)), examples=STATUSES)


@subject("rabbitmq", "queue", "crash after")
def seen_set_in_memory() -> Built:
    """Remembers in a variable what it has seen, and a new process knows nothing of it."""
    app, table, seen = gearshift.App(), {"total": 0}, set[str]()

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.id not in seen:
            seen.add(str(delivery.id))
            table["total"] += cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("kafka", "stream", "reordered")
def order_among_keys() -> Built:
    """The last of all messages wins, of whatever key."""
    app, table = gearshift.App(), {"latest": 0}

    @app.handler("prices")
    def keep(price: int) -> None:
        table["latest"] = price

    return Built(app=app, state=lambda: table, examples=[("ada", 5), ("bob", 7)])


@subject("rabbitmq", "queue", "reordered")
def order_on_a_queue() -> Built:
    """The last message of a key wins, with several consumers of one queue."""
    app, table, seen = gearshift.App(), {}, set[str]()

    @app.handler("orders")
    def keep(status: str, delivery: Delivery[Any]) -> None:
        if delivery.id not in seen:
            _ = table.update({delivery.key: status}), seen.add(delivery.id)  # one transaction

    return Built(app=app, state=lambda: (table, sorted(seen)), examples=STATUSES)


@subject("kafka", "queue", "reordered")
def order_of_a_share_group() -> Built:
    """Counts on the order of a key where the broker keeps none."""
    app, table = gearshift.App(), {}

    @app.handler("orders")
    def keep(status: str, delivery: Delivery[Any]) -> None:
        if status == "placed":
            table[delivery.key] = "placed"
        elif delivery.key in table:
            table[delivery.key] = "paid"

    return Built(app=app, state=lambda: table, examples=STATUSES[:2])


@subject("kafka", "stream", "reordered")
def two_sends_without_order() -> Built:
    """Sends to two channels, and counts on the first to be handled first."""
    app, table, producer = gearshift.App(), {}, producers()

    @app.handler("orders")
    def split(order: str, delivery: Delivery[Any]) -> None:
        producer("a").send(order, id=f"{delivery.id}-a")
        producer("b").send(order, id=f"{delivery.id}-b")

    @app.handler("a")
    def reserve(order: str) -> None:
        table.setdefault(order, "reserved")

    @app.handler("b")
    def ship(order: str) -> None:
        if table.get(order) == "reserved":
            table[order] = "shipped"

    return Built(app=app, state=lambda: table, examples=[Example("o1", "orders")])


@subject("rabbitmq", "queue", "reordered")
def late_timer() -> Built:
    """A timer that comes before the payment cancels the order, and the payment is dropped."""
    app, table = gearshift.App(), {}

    @app.handler("orders")
    def pay(order: str) -> None:
        table.setdefault(order, "paid")

    @app.handler("timers")
    def expire(order: str) -> None:
        table.setdefault(order, "expired")

    examples = [Example("o1", "orders"), Example("o1", "timers")]
    return Built(app=app, state=lambda: table, examples=examples)


@subject("rabbitmq", "queue", "overlap")
def shared_client() -> Built:
    """Keeps the message at hand in a variable that its threads share."""
    app, table, request = gearshift.App(), {}, {"account": None}

    @app.handler("payments", concurrency=4)
    def charge(cents: int, delivery: Delivery[Any]) -> None:
        request["account"] = delivery.id
        table[request["account"]] = cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("rabbitmq", "queue", "crash inside")
def partial_batch() -> Built:
    """Handles the parts one by one, and notes only at the end that it is done."""
    app, stock, seen = gearshift.App(), {"left": 10}, set[str]()

    @app.handler("orders")
    def take(parts: list[int], delivery: Delivery[Any]) -> None:
        if delivery.id in seen:
            return
        for part in parts:
            stock["left"] -= part
        seen.add(str(delivery.id))

    return Built(
        app=app, state=lambda: (stock, sorted(seen)), examples=[("ada", [1, 2]), ("bob", [3])]
    )


@subject("kafka", "stream", "crash inside")
def noted_before_the_effect() -> Built:
    """Notes first that it has seen the message, so a death loses the effect."""
    app, table, seen = gearshift.App(), {"total": 0}, set[str]()

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.id not in seen:
            seen.add(str(delivery.id))
            table["total"] += cents

    return Built(app=app, state=lambda: (table, sorted(seen)), examples=PAYMENTS)


@subject("rabbitmq", "queue", "unflagged")
def goes_by_redelivered() -> Built:
    """Adds unless the broker says that the message was delivered before."""
    app, table = gearshift.App(), {"total": 0}

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if not delivery.redelivered:
            table["total"] += cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("sqlite", "queue", "duplicate")
def goes_by_redelivered_where_it_is_exact() -> Built:
    """Trusts an exact flag, which a second copy of a message rightly does not have."""
    return goes_by_redelivered()


@subject("kafka", "stream", "lost ack")
def goes_by_attempt() -> Built:
    """Adds at the first attempt only, which a lost ack does not count."""
    app, table = gearshift.App(), {"total": 0}

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.attempt == 1:
            table["total"] += cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("rabbitmq", "queue", "lost ack")
def sends_under_a_new_id() -> Built:
    """Sends again what it has sent, and nobody can tell that it is the same."""
    app, table, producer = gearshift.App(), {}, producers()

    @app.handler("orders")
    def invoice(order: str, delivery: Delivery[Any]) -> None:
        table[delivery.id] = order
        producer("mails").send(order)

    return Built(app=app, state=lambda: table, examples=STATUSES[:1])


@subject("kafka", "stream", "lost ack")
def remembers_the_last_id_only() -> Built:
    """Knows the last message again, and a stream repeats several."""
    app, table = gearshift.App(), {"total": 0, "last": ""}

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if table["last"] != delivery.id:
            table.update(total=table["total"] + cents, last=delivery.id)

    return Built(
        app=app, state=lambda: table["total"] or table["last"], examples=[("ada", 5), ("ada", 1)]
    )


@subject("rabbitmq", "queue", "returns late", processes=1)
def late_copy_overwrites() -> Built:
    """Sets what the message says, and an old one that comes late sets it back."""
    app, table = gearshift.App(), {}

    @app.handler("orders")
    def keep(status: str, delivery: Delivery[Any]) -> None:
        table[delivery.key] = status

    return Built(app=app, state=lambda: table, examples=STATUSES[:2])


@subject("rabbitmq", "queue", "overlap")
def check_then_act() -> Built:
    """Two tasks find the name free, and both take it."""
    app, users = gearshift.App(), {}

    @app.handler("names", concurrency=8)
    async def register(name: str, delivery: Delivery[Any]) -> None:
        free = name not in users
        await asyncio.sleep(0)
        if free:
            users[name] = users.get(name, 0) + 1

    return Built(app=app, state=lambda: users, examples=[("ada", "x"), ("bob", "x")])


@subject("kafka", "queue", "taken twice")
def two_processes_at_once() -> Built:
    """Looks first and adds then: safe one after the other, not at the same time."""
    app, table, seen = gearshift.App(), {"total": 0}, set[str]()

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.id not in seen:
            _ = table.update(total=table["total"] + cents), seen.add(delivery.id)  # one step

    return Built(app=app, state=lambda: (table, sorted(seen)), examples=PAYMENTS[:2])


@subject("kafka", "stream", "overlap")
def lost_update() -> Built:
    """Reads a sum, and writes it back when another handler has changed it."""
    app, table, seen = gearshift.App(), {"total": 0}, set[str]()

    @app.handler("payments", concurrency=8)
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.id in seen:
            return
        before = table["total"]
        _ = table.update(total=before + cents), seen.add(delivery.id)  # one step

    return Built(app=app, state=lambda: (table, sorted(seen)), examples=PAYMENTS)


@subject("rabbitmq", "queue", "crash after")
def buffered_in_memory() -> Built:
    """Acks what it only keeps in memory until there are three."""
    app, table, buffer = gearshift.App(), {}, []

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        buffer.append((delivery.id, cents))
        if len(dict(buffer)) == 3:
            table.update(buffer)
            buffer.clear()

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("rabbitmq", "queue", "lost ack")
def duplicate_is_an_error() -> Built:
    """Fails on a message that it has seen, which makes a dead letter of it."""
    app, table = gearshift.App(), {}

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.id in table:
            raise ValueError("duplicate key")
        table[delivery.id] = cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS)


@subject("rabbitmq", "queue", "crash inside")
def two_transactions() -> Built:
    """Commits the effect, and then that it has seen the message."""
    app, file = gearshift.App(), Path(tempfile.mkdtemp()) / "paid.db"
    run("create table seen (id text primary key); create table paid (cents int)", file)

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        with closing(sqlite3.connect(file)) as db:
            if db.execute("select 1 from seen where id = ?", [delivery.id]).fetchone():
                return
            with db:
                db.execute("insert into paid values (?)", [cents])
            with db:
                db.execute("insert into seen values (?)", [delivery.id])

    def paid() -> list[Any]:
        with closing(sqlite3.connect(file)) as db:
            return db.execute("select count(*), sum(cents) from paid").fetchall()

    return Built(
        app=app,
        state=paid,
        reset=lambda: run("delete from seen; delete from paid", file),
        examples=PAYMENTS[:2],
    )


@subject("rabbitmq", "queue", "crash inside")
def acks_first() -> Built:
    """Acks, and then does the work, which a death in between loses."""
    app, table = gearshift.App(), {}

    @app.handler("payments")
    def keep(cents: int, delivery: Delivery[Any]) -> None:
        delivery.ack()
        table[delivery.id] = cents

    return Built(app=app, state=lambda: table, examples=PAYMENTS[:2])


@subject("kafka", "stream", "crash inside")
def far_down() -> Built:
    """Two effects that belong together, after sixty lines that do no harm."""
    app, table, seen = gearshift.App(), {"total": 0}, set[str]()

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.id in seen:
            return
        for _ in range(30):
            cents = int(cents)
        table["total"] += cents
        seen.add(str(delivery.id))

    return Built(app=app, state=lambda: (table, sorted(seen)), examples=PAYMENTS[:2])


@subject("rabbitmq", "queue", "crash inside")
def last_of_a_chain() -> Built:
    """Four handlers, each sending to the next; the last notes too late that it is done."""
    app, table, seen = gearshift.App(), {"shipped": 0}, set[str]()

    def step(channel: str, following: str) -> None:
        @app.handler(channel)
        def pass_on(order: str, delivery: Delivery[Any], bus: gearshift.Bus) -> None:
            bus.send(following, order, id=f"{delivery.id}-{following}")

    step("orders", "pay")
    step("pay", "pack")
    step("pack", "ship")

    @app.handler("ship")
    def ship(order: str, delivery: Delivery[Any]) -> None:
        if delivery.id not in seen:
            table["shipped"] += 1
            seen.add(str(delivery.id))

    return Built(
        app=app,
        state=lambda: (table, sorted(seen)),
        examples=[Example(one, "orders") for one in ("o1", "o2")],
    )


def run(script: str, file: Path) -> None:
    """Run SQL on a file."""
    with closing(sqlite3.connect(file)) as db:
        db.executescript(script)
