"""Thousands of async handlers at once in one process, on every broker; `make soak` runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.settings import settings_of
from support.waiting import PATIENCE_S, until

import gearshift
from native_brokers import Kafka

#: Each key twice, so that one message of each is at work while the other waits for it.
KEYS = 5000

#: So many messages of a partition may a group of a queue on Kafka have in hand; else 2,000.
LOCKS = {f"group.share.{most}partition.max.record.locks": "10000" for most in ("", "max.")}

#: Handlers wait until all keys are at work; then they go on, until the service is told to stop.
APP = """
import asyncio, pathlib, threading
import gearshift

app = gearshift.App()
at_work = 0
all_there = asyncio.Event()
log = open("log", "a", buffering=1)

@app.handler("many", group="g", concurrency=KEYS)
async def handle(sent: list[int]) -> None:
    global at_work
    at_work += 1
    if at_work == KEYS:
        resident = pathlib.Path("/proc/self/statm").read_text().split()[1]
        print(threading.active_count(), int(resident) * 4 // 1024, file=log)
        all_there.set()
    await all_there.wait()
    print(*sent, file=log)
    at_work -= 1
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    """A broker whose queues hand out more at a time than they do by default."""
    with Kafka(settings=LOCKS) as broker:
        yield broker


BROKERS = ["rabbitmq:queue", "rabbitmq:stream", "kafka:stream", "kafka:queue", "redis:queue"]


@pytest.mark.parametrize(
    "kind", ["sqlite:queue"] + [pytest.param(one, marks=pytest.mark.broker) for one in BROKERS]
)
def test_thousands_of_handlers_work_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """They need no thread each, keep the order of each key, and are drained at SIGTERM."""
    file = settings_of(request, kind, tmp_path, name)
    with file.open("a") as settings:
        settings.write("partitions = 4\n" if kind.endswith("stream") else "")
        settings.write(f"prefetch = {2 * KEYS}\n")  # partitions are not read evenly
    Path("service.py").write_text(APP.replace('"many"', repr(name)).replace("KEYS", str(KEYS)))
    log = Path("log")
    with gearshift.open(file) as bus:
        bus.producer(name).send_many(
            ([key, time] for time in (1, 2) for key in range(KEYS)),
            key_by=lambda sent: str(sent[0]),
        )
        command = [sys.executable, "-m", "gearshift", "run", "service:app", "--config", str(file)]
        with subprocess.Popen(command) as service:
            try:
                assert until(lambda: _written(log).count("\n") == 2 * KEYS + 1)
                service.send_signal(signal.SIGTERM)
                assert service.wait(PATIENCE_S) == 0
            finally:
                service.kill()
        with bus.consumer(name, group="g") as left:
            left.ready()
            assert left.receive(timeout_s=1.0) == []
        bus.delete(name)
    lines = [[int(word) for word in line.split()] for line in _written(log).splitlines()]
    (threads, mebibytes), *handled = lines
    assert threads < 30
    assert mebibytes < 500
    times: dict[int, list[int]] = {}
    for key, time in handled:
        times.setdefault(key, []).append(time)
    assert times == {key: [1, 2] for key in range(KEYS)}


def _written(log: Path) -> str:
    return log.read_text() if log.exists() else ""
