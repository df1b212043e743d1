"""Handlers: ack after success, bounded retries, dead letters, draining."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.waiting import PATIENCE_S, ack_all, drain, take, until

import gearshift
from gearshift import App, Worker, errors


class Order(msgspec.Struct):
    n: int


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_every_outcome_of_a_handler(bus: gearshift.Bus, channel: str) -> None:
    """Return acks, an exception retries and then dead-letters, Reject goes there at once."""
    app = gearshift.App()
    calls: list[int] = []

    @app.handler(channel, group="audit", concurrency=3)
    def handle(order: Order) -> None:
        calls.append(order.n)
        if order.n == 1:
            raise ValueError("poison")
        if order.n == 2:
            raise gearshift.Reject("never")
        if order.n == 3 and calls.count(3) == 1:
            raise gearshift.Retry(0.01)

    worker = Worker(app, bus)
    worker.start()
    worker.ready()
    bus.producer(channel).send_many([{"n": n} for n in range(5)] + [{"bad": 1}])
    assert until(lambda: worker.report.acked == 3 and worker.report.rejected == 3)
    report = worker.stop()
    assert (report.acked, report.retried, report.rejected) == (3, 3, 3)
    assert report.unfinished == []
    assert calls.count(1) == 3
    assert calls.count(3) == 2
    with bus.consumer(f"{channel}.dead") as dead:
        letters = take(dead, 3)
        ack_all(letters)
        assert drain(dead, 0) == []
    reasons = [letter.headers["dead-letter-reason"] for letter in letters]
    assert "never" in reasons
    assert "gave up after 3 attempts: ValueError: poison" in reasons


def test_async_handlers_share_one_event_loop(bus: gearshift.Bus) -> None:
    """Async functions run at the same time, up to their concurrency, on one loop."""
    app = gearshift.App()
    loops, together, most, four = set(), 0, 0, asyncio.Event()

    @app.handler("orders", group="audit", concurrency=4)
    async def handle(order: Order, delivery: gearshift.Delivery[Order]) -> None:
        nonlocal together, most
        loops.add(asyncio.get_running_loop())
        together += 1
        most = max(most, together)
        if most == 4:
            four.set()
        await four.wait()
        together -= 1

    worker = Worker(app, bus)
    worker.start()
    bus.producer("orders").send_many({"n": n} for n in range(40))
    assert until(lambda: worker.report.acked == 40)
    worker.stop()
    assert len(loops) == 1
    assert most == 4


def test_thousands_of_async_handlers_run_at_once_without_a_thread_each(bus: gearshift.Bus) -> None:
    """Each message is a task of one loop; what is prefetched follows the concurrency."""
    app = gearshift.App()
    together, most, all_of_them = 0, 0, asyncio.Event()

    @app.handler("orders", group="audit", concurrency=3000)
    async def handle(order: Order) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        if most == 3000:
            all_of_them.set()
        await all_of_them.wait()
        together -= 1

    threads = threading.active_count()
    worker = Worker(app, bus)
    worker.start()
    bus.producer("orders").send_many({"n": n} for n in range(3100))
    assert until(lambda: worker.report.acked == 3100)
    assert most == 3000
    assert threading.active_count() < threads + 10
    assert worker.stop().acked == 3100


def test_async_handlers_keep_the_order_of_each_key(bus: gearshift.Bus) -> None:
    """However many run at once: those of one key come one after the other."""
    app = gearshift.App()
    seen: dict[int, list[int]] = {}
    running: set[int] = set()

    @app.handler("orders", group="audit", concurrency=50)
    async def handle(order: Order) -> None:
        key = order.n % 5
        assert key not in running
        running.add(key)
        await asyncio.sleep(0.001 * (order.n % 3))
        running.remove(key)
        seen.setdefault(key, []).append(order.n)

    worker = Worker(app, bus)
    worker.start()
    orders = bus.producer("orders")
    orders.send_many(({"n": n} for n in range(100)), key_by=lambda order: f"{order['n'] % 5}")
    assert until(lambda: worker.report.acked == 100), worker.report
    worker.stop()
    assert all(numbers == sorted(numbers) for numbers in seen.values())


def test_stop_waits_for_async_handlers(bus: gearshift.Bus) -> None:
    """What has begun is finished and acked; nothing new begins."""
    app = gearshift.App()
    begun, finished = threading.Event(), []

    @app.handler("orders", group="audit", concurrency=2)
    async def handle(order: Order) -> None:
        begun.set()
        await asyncio.sleep(0.2)
        finished.append(order.n)

    worker = Worker(app, bus)
    worker.start()
    bus.producer("orders").send_many({"n": n} for n in range(2))
    assert begun.wait(PATIENCE_S)
    report = worker.stop()
    assert report.acked == len(finished) >= 1
    assert report.unfinished == []


def test_an_async_handler_that_outlives_the_drain_gives_its_message_back(
    bus: gearshift.Bus,
) -> None:
    """Its message is unfinished, and comes again."""
    app = gearshift.App()
    begun = threading.Event()

    @app.handler("orders", group="audit")
    async def handle(order: Order) -> None:
        begun.set()
        await asyncio.Event().wait()

    worker = Worker(app, bus)
    worker.start()
    receipt = bus.producer("orders").send({"n": 1})
    assert begun.wait(PATIENCE_S)
    assert worker.stop(drain_timeout_s=0.2).unfinished == [receipt.id]
    with bus.consumer("orders", group="audit") as consumer:
        assert take(consumer, 1)[0].id == receipt.id


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_takes_too_long_has_failed(
    bus: gearshift.Bus, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An async one is cancelled; a plain one is reported, and retried when it ends."""
    app = gearshift.App()
    release = threading.Event()
    attempts: list[int] = []

    def first(delivery: gearshift.Delivery[Order]) -> bool:
        attempts.append(delivery.attempt)
        return delivery.attempt == 1

    async def hang(order: Order, delivery: gearshift.Delivery[Order]) -> None:
        if first(delivery):
            await asyncio.Event().wait()

    def block(order: Order, delivery: gearshift.Delivery[Order]) -> None:
        if first(delivery):
            release.wait(PATIENCE_S)

    app.handler("orders", group="audit", timeout_s=0.2)(hang if is_async else block)
    worker = Worker(app, bus)
    worker.start()
    bus.producer("orders").send({"n": 1})
    if not is_async:
        assert until(lambda: "takes longer than it may, and goes on" in caplog.text)
        assert worker.report.retried == 0
        release.set()
    assert until(lambda: worker.report.acked == 1)
    assert worker.stop().retried == 1
    assert attempts == [1, 2]
    assert "the handler took longer than timeout_s = 0.2" in caplog.text


def test_stop_drains_and_names_what_it_could_not_finish(bus: gearshift.Bus) -> None:
    """A handler that outlives the deadline keeps its message unsettled: it comes again."""
    app = gearshift.App()
    started, release = threading.Event(), threading.Event()

    @app.handler("orders", group="audit")
    def handle(order: Order) -> None:
        started.set()
        release.wait(PATIENCE_S)

    worker = Worker(app, bus)
    worker.start()
    receipt = bus.producer("orders").send({"n": 1})
    assert started.wait(PATIENCE_S)
    report = worker.stop(drain_timeout_s=0.2)
    assert report.unfinished == [receipt.id]
    with bus.consumer("orders", group="audit") as consumer:
        assert take(consumer, 1)[0].id == receipt.id
    release.set()


def leave(order: Order) -> None:
    sys.exit("as celery handlers do")


def be_cancelled(order: Order) -> None:
    raise asyncio.CancelledError


async def leave_async(order: Order) -> None:
    await asyncio.sleep(0)
    sys.exit(1)


@pytest.mark.parametrize("ending", [leave, be_cancelled, leave_async])
@pytest.mark.parametrize("channel", ["orders", "events"])
def test_a_handler_that_exits_has_failed_and_the_worker_works_on(
    bus: gearshift.Bus, channel: str, ending: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its message is tried again and then dead-lettered, with a line each time; others go on."""
    app = gearshift.App()

    @app.handler(channel, group="audit")
    def handle(order: Order) -> Any:
        return ending(order) if order.n == 0 else None

    worker = Worker(app, bus)
    worker.start()
    bus.producer(channel).send_many([{"n": n} for n in range(3)])
    assert until(lambda: worker.report.acked == 2 and worker.report.rejected == 1)
    report = worker.stop()
    assert (report.retried, report.rejected) == (2, 1)
    assert worker.error is None
    failures = [record for record in caplog.records if "failed on message" in record.message]
    assert len(failures) == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_a_worker_whose_bus_was_closed_under_it_has_failed(
    bus: gearshift.Bus, is_async: bool
) -> None:
    """Its handlers get nothing any more, so it must not look as if it worked."""
    app = App()

    @app.handler("orders", group="audit")
    def handle(value: int) -> None:
        bus.close()

    async def handle_async(value: int) -> None:
        await asyncio.to_thread(bus.close)

    if is_async:
        app = App()
        app.handler("orders", group="audit")(handle_async)
    worker = Worker(app, bus)
    worker.start()
    bus.producer("orders").send(1)
    assert worker.failed.wait(PATIENCE_S)
    assert isinstance(worker.error, errors.Closed)
    worker.stop()
    with pytest.raises(errors.UsageError, match="was stopped"):
        worker.start()


def test_a_handler_cannot_wait_for_its_own_end(bus: gearshift.Bus) -> None:
    """It fails, and the worker goes on receiving."""
    app, refused = App(), []

    @app.handler("orders", group="audit")
    def handle(value: int) -> None:
        with pytest.raises(errors.UsageError, match="called in a handler") as caught:
            worker.stop()
        refused.append(caught.value)

    worker = Worker(app, bus)
    worker.start()
    with bus.producer("orders") as producer:
        producer.send_many([1, 2])
    assert until(lambda: len(refused) == 2)
    assert worker.stop().acked == 2


def test_a_worker_whose_thread_ends_has_failed(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not look healthy and consume nothing: ``failed`` is set and ``error`` says why."""
    app = gearshift.App()

    @app.handler("orders", group="audit")
    def handle(order: Order) -> None: ...

    def broken(*_: object) -> None:
        raise SystemExit

    worker = Worker(app, bus)
    monkeypatch.setattr(worker, "_handle", broken)
    worker.start()
    bus.producer("orders").send({"n": 1})
    assert worker.failed.wait(PATIENCE_S)
    assert isinstance(worker.error, SystemExit)
    worker.stop()


NEEDY = """
import gearshift
app = gearshift.App()

@app.handler("orders", requires=["replay"])
def handle(value): ...
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_no_other_process_would_be_spared_ends_it(tmp_path: Path, processes: str) -> None:
    """A missing capability is told and ends the run, children too."""
    (tmp_path / "shop.py").write_text(NEEDY)
    done = subprocess.run(
        [Path(sys.executable).with_name("gearshift"), "run", "shop:app", "--processes", processes],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 4
    assert "requires replay" in done.stderr
    assert "Traceback" not in done.stderr
