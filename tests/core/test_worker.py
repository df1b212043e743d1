"""Handlers: ack after success, bounded retries, dead letters, draining."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

import gearshift
from gearshift import errors
from gearshift.worker import Worker


class Order(msgspec.Struct):
    n: int


def wait_until(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


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
    wait_until(lambda: worker.report.acked == 3 and worker.report.rejected == 3)
    report = worker.stop()
    assert (report.acked, report.retried, report.rejected) == (3, 3, 3)
    assert report.unfinished == []
    assert calls.count(1) == 3
    assert calls.count(3) == 2
    with bus.consumer(f"{channel}.dead") as dead:
        reasons = []
        for letter in dead.iterate(idle_timeout_s=0.4):
            reasons.append(str(letter.headers["dead-letter-reason"]))
            letter.ack()
    assert len(reasons) == 3
    assert "never" in reasons
    assert "gave up after 3 attempts: ValueError: poison" in reasons


def test_async_handlers_share_one_event_loop(bus: gearshift.Bus) -> None:
    """Async functions run at the same time, up to their concurrency, on one loop."""
    app = gearshift.App()
    loops, together, most = set(), 0, 0

    @app.handler("orders", group="audit", concurrency=4)
    async def handle(order: Order, delivery: gearshift.Delivery[Order]) -> None:
        nonlocal together, most
        loops.add(asyncio.get_running_loop())
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.02)
        together -= 1

    worker = Worker(app, bus)
    worker.start()
    bus.producer("orders").send_many({"n": n} for n in range(40))
    wait_until(lambda: worker.report.acked == 40)
    worker.stop()
    assert len(loops) == 1
    assert 1 < most <= 4


def test_stop_drains_and_names_what_it_could_not_finish(bus: gearshift.Bus) -> None:
    """A handler that outlives the deadline keeps its message unsettled: it comes again."""
    app = gearshift.App()
    started, release = threading.Event(), threading.Event()

    @app.handler("orders", group="audit")
    def handle(order: Order) -> None:
        started.set()
        release.wait(30)

    worker = Worker(app, bus)
    worker.start()
    receipt = bus.producer("orders").send({"n": 1})
    assert started.wait(10)
    report = worker.stop(drain_timeout_s=0.2)
    assert report.unfinished == [receipt.id]
    with bus.consumer("orders", group="audit") as consumer:
        assert consumer.receive(timeout_s=5)[0].id == receipt.id
    release.set()


LOUD = """
import logging, gearshift
app = gearshift.App()
logging.getLogger("some.client").error("password=canary")

@app.handler("orders", requires=["replay"])
def handle(value): ...
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_no_other_process_would_be_spared_ends_it(tmp_path: Path, processes: str) -> None:
    """A missing capability is told and ends the run, children too; clients' logs are not shown."""
    (tmp_path / "shop.py").write_text(LOUD)
    done = subprocess.run(
        [Path(sys.executable).with_name("gearshift"), "run", "shop:app", "--processes", processes],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == errors.NotSupported.exit_code == 4
    assert "requires replay" in done.stderr
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stderr
