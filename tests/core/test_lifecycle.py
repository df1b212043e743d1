"""How buses, workers and processes end: nothing that was begun is lost, nothing is done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, ack_all, drain, take, until

import gearshift
from gearshift import Worker, errors

CONFIG = """
profile = "p"
[profiles.p]
backend = "sqlite"
path = "test.db"
[channels.orders]
prefetch = 4
[channels.events]
semantics = "stream"
prefetch = 4
"""

DROPPED = """
import gearshift
producer = gearshift.open().producer("orders")
for number in range(300):
    producer.submit(number)
"""

WORKER = """
import pathlib, time
import gearshift

app = gearshift.App()
here = pathlib.Path.cwd()

@app.handler("CHANNEL", concurrency=2)
def handle(number: int) -> None:
    (here / f"begun-{number}").touch()
    while not (here / "release").exists():
        time.sleep(0.01)
    (here / f"done-{number}").touch()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The current folder, with a gearshift.toml for SQLite."""
    (tmp_path / "gearshift.toml").write_text(CONFIG)
    return tmp_path


def drained(channel: str, count: int) -> list[object]:
    with gearshift.open() as bus, bus.consumer(channel) as consumer:
        return drain(consumer, count)


@pytest.mark.parametrize("how", ["", "raise SystemExit(3)", "1 / 0"])
def test_a_process_that_ends_without_closing_sends_what_it_submitted(
    folder: Path, how: str
) -> None:
    """At its last line, by sys.exit, or by an exception that nobody caught."""
    subprocess.run([sys.executable, "-c", DROPPED + how], stderr=subprocess.DEVNULL, check=False)
    assert drained("orders", 300) == list(range(300))


def test_closing_a_bus_gives_every_submission_its_end(bus: gearshift.Bus) -> None:
    """While other threads still send: a receipt or an error for each, no future is left open."""
    producer = bus.producer("orders")
    futures, refused = [], threading.Event()

    def send() -> None:
        try:
            while True:
                futures.append(producer.submit(1))
        except gearshift.errors.Closed:
            refused.set()

    sender = threading.Thread(target=send)
    sender.start()
    assert until(lambda: len(futures) > 100)
    bus.close()
    assert refused.wait(PATIENCE_S)
    sender.join()
    assert all(future.done() for future in futures)
    ends = {type(future.exception()) for future in futures}
    assert ends <= {type(None), gearshift.errors.OutcomeUnknown}


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_a_slow_key_holds_back_itself_alone(bus: gearshift.Bus, channel: str) -> None:
    """Handlers on threads: one key's messages in order, one at a time; another key overtakes."""
    app = gearshift.App()
    order: dict[str | None, list[int]] = defaultdict(list)
    active: list[str | None] = []
    other_is_done, overlapping = threading.Event(), []

    @app.handler(channel, group="audit", concurrency=4)
    def handle(number: int, delivery: gearshift.Delivery[int]) -> None:
        if delivery.key in active:
            overlapping.append(number)
        active.append(delivery.key)
        if delivery.key == "slow":
            assert other_is_done.wait(PATIENCE_S)
        order[delivery.key].append(number)
        active.remove(delivery.key)
        if order["quick"] == list(range(1, 40, 2)):
            other_is_done.set()

    worker = Worker(app, bus)
    worker.start()
    bus.producer(channel).send_many(range(40), key_by=lambda n: "quick" if n % 2 else "slow")
    assert until(lambda: worker.report.acked == 40)
    report = worker.stop()
    assert (report.retried, report.rejected, overlapping) == (0, 0, [])
    assert order == {"slow": list(range(0, 40, 2)), "quick": list(range(1, 40, 2))}


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_a_terminated_worker_finishes_what_it_has_begun_in_every_process(
    folder: Path, channel: str
) -> None:
    """SIGTERM: what was begun is done, and what was not comes to the next one.

    On a queue once; on a stream a partition that changes hands may bring some of it again.
    """
    (folder / "service.py").write_text(WORKER.replace("CHANNEL", channel))
    with gearshift.open() as bus:
        bus.producer(channel).send_many(range(40), key_by=str)
    program = Path(sys.executable).with_name("gearshift")
    with subprocess.Popen(
        [program, "run", "service:app", "--processes", "2"], stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            assert until(lambda: len(list(folder.glob("begun-*"))) >= 3)  # so both processes
            worker.send_signal(signal.SIGTERM)
            (folder / "release").touch()
            _, said = worker.communicate(timeout=PATIENCE_S)
        finally:
            worker.kill()
    assert worker.returncode == 0, said
    begun, done = (
        {int(path.name.partition("-")[2]) for path in folder.glob(f"{state}-*")}
        for state in ("begun", "done")
    )
    assert begun == done
    left: list[object] = []
    with gearshift.open() as bus, bus.consumer(channel) as consumer:
        while {*done, *left} != set(range(40)):
            left += ack_all(take(consumer, 1))
        if channel == "orders":
            assert drain(consumer, 0) == []
            assert len(done) + len(left) == 40


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_a_consumer_of_a_channel_that_stays_deleted_says_so(
    bus: gearshift.Bus,
    channel: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may not create it again, so it waits a while and then raises; never silent for ever. Of
    what was unsettled nothing is promised."""
    monkeypatch.setattr("gearshift._core.consuming.loop.MISSING_GRACE_S", 0.3)
    bus.declare(channel)
    consumer = bus.consumer(channel, group="audit", create=False)
    consumer.ready()
    bus.delete(channel)
    with pytest.raises(errors.UnknownChannel):
        consumer.receive(timeout_s=PATIENCE_S)
    assert "what was unsettled may be lost" in caplog.text
    assert "will come again" not in caplog.text


@pytest.mark.parametrize("ephemeral", [False, True])
def test_a_stream_that_is_made_again_under_its_reader_is_read_from_its_beginning(
    bus: gearshift.Bus, ephemeral: bool
) -> None:
    """Also where the reader does not look between; its own position was one in the old stream."""
    group = None if ephemeral else "audit"
    consumer = bus.consumer("events", group=group, ephemeral=ephemeral, start="earliest")
    bus.producer("events").send_many(range(10))
    assert sorted(ack_all(take(consumer, 10)), key=str) == list(range(10))
    bus.delete("events")
    bus.declare("events")
    bus.producer("events").send_many(range(100, 130))
    assert set(ack_all(take(consumer, 30))) == set(range(100, 130))


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_a_bus_that_is_dropped_warns_sends_what_it_has_and_stops_its_threads(
    folder: Path, channel: str
) -> None:
    """With its producer and consumer, by reference counting alone; a new bus gets everything."""
    before = set(threading.enumerate())
    bus = gearshift.open()
    producer, consumer = bus.producer(channel), bus.consumer(channel, group="default")
    consumer.ready()
    mine = set(threading.enumerate()) - before
    assert mine
    futures = [producer.submit(number) for number in range(300)]
    del bus, consumer
    with pytest.warns(ResourceWarning, match="unclosed <Bus"):
        del producer
    assert until(lambda: not any(thread.is_alive() for thread in mine))
    assert all(future.result(0) for future in futures)
    assert sorted(drained(channel, 300)) == list(range(300))


def test_a_producer_keeps_its_bus_open(folder: Path) -> None:
    """Nobody else has to hold on to the bus; the same for a consumer."""
    producer, consumer = gearshift.open().producer("orders"), gearshift.open().consumer("orders")
    producer.send(1)
    (delivery,) = take(consumer, 1)
    delivery.ack()
    with pytest.warns(ResourceWarning):
        del producer
    del delivery
    with pytest.warns(ResourceWarning):
        del consumer
