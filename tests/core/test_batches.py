"""Handlers of batches, on threads and as tasks: gathered, settled and drained."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from support.waiting import ack_all, drain, take, until

import gearshift
from gearshift import BatchFailed, Worker

FAR_S = 3600.0


class Order(msgspec.Struct):
    n: int


Handle = Callable[[list[Order]], None]


@pytest.fixture(params=["thread", "task"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Whether the handler is an async function."""
    return bool(request.param == "task")


@contextmanager
def running(
    bus: gearshift.Bus, handle: Handle, channel: str, is_async: bool, **options: Any
) -> Iterator[Worker]:
    """A worker that calls ``handle`` with batches of ``channel``."""
    app = gearshift.App()
    group = "audit" if channel == "orders" else None

    async def awaited(orders: list[Order]) -> None:
        await asyncio.sleep(0)
        handle(orders)

    def called(orders: list[Order]) -> None:
        handle(orders)

    app.handler(channel, group=group, **options)(awaited if is_async else called)
    worker = Worker(app, bus)
    worker.start()
    worker.ready()
    try:
        yield worker
    finally:
        worker.stop()


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_full_batches_go_at_once_and_the_rest_after_its_time(
    bus: gearshift.Bus, channel: str, is_async: bool
) -> None:
    """The time begins with the first message of a batch, and one that is full does not wait."""
    batches: list[list[int]] = []
    bus.producer(channel).send_many({"n": n} for n in range(25))
    with running(
        bus, lambda orders: batches.append([each.n for each in orders]), channel, is_async,
        batch=10, linger_s=0.3,
    ) as worker:  # fmt: skip
        assert until(lambda: worker.report.acked == 25), (batches, worker.report)
    assert sorted(n for batch in batches for n in batch) == list(range(25))
    assert max(map(len, batches)) == 10
    assert bus.stats().receiving[0].handled["ack"].count == 25


def test_a_batch_waits_for_its_time_and_not_longer(bus: gearshift.Bus, is_async: bool) -> None:
    """A full one is handled while its time is far."""
    batches: list[int] = []
    producer = bus.producer("orders")
    with running(
        bus, lambda orders: batches.append(len(orders)), "orders", is_async, batch=3, linger_s=FAR_S
    ) as worker:
        for n in range(3):
            producer.send({"n": n})
        assert until(lambda: worker.report.acked == 3)
        producer.send({"n": 3})
        assert until(lambda: worker._consumers[0].unsettled == 1)
        assert worker.stop().acked == 4  # draining hands over what has been gathered
    assert batches == [3, 1]


def test_a_batch_that_the_window_cannot_fill_does_not_wait(bus: gearshift.Bus) -> None:
    """With as much in hand as memory allows nothing more will come."""
    batches: list[int] = []
    body = {"n": 1, "padding": "x" * 1000}
    settings = {
        "profiles": {"p": {"backend": "memory"}}, "profile": "p",
        "channels": {"large": {"prefetch_bytes": 5000}},
    }  # fmt: skip
    with gearshift.open(settings) as bus:
        bus.producer("large").send_many(body for _ in range(20))
        with running(
            bus, lambda orders: batches.append(len(orders)), "large", False,
            batch=100, linger_s=FAR_S,
        ) as worker:  # fmt: skip
            assert until(lambda: worker.report.acked >= 10), worker.report
    assert 1 < max(batches) < 10


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_a_poison_message_takes_no_neighbour_along(
    bus: gearshift.Bus, channel: str, is_async: bool
) -> None:
    """All of its batch come again, each alone; it alone ends among the dead letters."""
    batches: list[list[int]] = []

    def handle(orders: list[Order]) -> None:
        numbers = [each.n for each in orders]
        batches.append(numbers)
        if 7 in numbers:
            raise gearshift.Reject("never")

    producer = bus.producer(channel)
    producer.send_many([{"n": n} for n in range(10)] + [{"bad": 1}])
    with running(bus, handle, channel, is_async, batch=11, linger_s=FAR_S) as worker:
        # Eleven are gathered; the one that cannot be decoded ends before the handler is called.
        assert until(lambda: worker.report.acked == 9 and worker.report.rejected == 2), batches
        assert worker.report.retried == 10
    assert sorted(batches[0]) == list(range(10))
    assert sorted(batches[1:]) == [[n] for n in range(10)]
    with bus.consumer(f"{channel}.dead") as dead:
        letters = take(dead, 2)
        ack_all(letters)
        assert drain(dead, 0) == []
    assert "never" in [letter.headers["dead-letter-reason"] for letter in letters]


def test_those_that_failed_come_again_and_the_others_are_acked(
    bus: gearshift.Bus, is_async: bool
) -> None:
    """BatchFailed names them."""
    batches: list[list[int]] = []

    def handle(orders: list[Order]) -> None:
        batches.append([each.n for each in orders])
        if len(orders) > 1:
            raise BatchFailed({1: ValueError("later"), 3: gearshift.Reject("never")})

    bus.producer("orders").send_many({"n": n} for n in range(5))
    with running(bus, handle, "orders", is_async, batch=5, linger_s=FAR_S) as worker:
        assert until(lambda: worker.report.acked == 4), worker.report
        assert (worker.report.retried, worker.report.rejected) == (1, 1)
    assert batches == [[0, 1, 2, 3, 4], [1]]


def test_a_delivery_may_be_settled_by_the_handler_itself(bus: gearshift.Bus) -> None:
    """The others end as the batch does."""
    app = gearshift.App()

    @app.handler("orders", group="audit", batch=3, linger_s=FAR_S)
    def handle(deliveries: list[gearshift.Delivery[Order]]) -> None:
        deliveries[1].reject("never")

    bus.producer("orders").send_many({"n": n} for n in range(3))
    worker = Worker(app, bus)
    worker.start()
    assert until(lambda: worker.report.acked == 2)
    report = worker.stop()
    assert (report.acked, report.rejected) == (2, 1)


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_batches_at_once_keep_the_order_of_each_key(
    bus: gearshift.Bus, channel: str, is_async: bool
) -> None:
    """A key's messages are in one batch at a time, in their order, also after a failure."""
    seen: dict[int, list[int]] = {}
    running_keys: set[int] = set()
    lock = threading.Lock()
    failing = channel == "events"  # on a stream a retry keeps its key's order

    def handle(orders: list[Order]) -> None:
        keys = {each.n % 4 for each in orders}
        with lock:
            assert not keys & running_keys
            running_keys.update(keys)
        fails = failing and 20 in [each.n for each in orders] and len(orders) > 1
        with lock:
            running_keys.difference_update(keys)
            if fails:
                raise ValueError("once")
            for each in orders:
                seen.setdefault(each.n % 4, []).append(each.n)

    bus.producer(channel).send_many(
        ({"n": n} for n in range(100)), key_by=lambda order: f"{order['n'] % 4}"
    )
    with running(bus, handle, channel, is_async, batch=16, linger_s=0.01, concurrency=3) as worker:
        assert until(lambda: worker.report.acked == 100), worker.report
    assert all(numbers == list(range(key, 100, 4)) for key, numbers in seen.items()), seen


def test_prefetch_follows_the_batch(bus: gearshift.Bus) -> None:
    """One batch is handled and the next one comes, whatever the channel's setting."""
    app = gearshift.App()

    @app.handler("orders", group="audit", batch=500, concurrency=2)
    def handle(orders: list[Order]) -> None: ...

    worker = Worker(app, bus)
    worker.start()
    assert worker._consumers[0]._users.window.prefetch == 1500
    worker.stop()
