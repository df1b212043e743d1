"""Thousands of async handlers at once in one process, on every broker; `make soak` runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.settings import settings_of
from support.waiting import PATIENCE_S, until

import gearshift

#: Each key twice, so that one message of each is at work while the other waits for it. A group of a
#: queue on Kafka has at most 2,000 messages of a partition in hand; the broker sees to it.
KEYS = {"kafka:queue": 1500}

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


BROKERS = ["rabbitmq:queue", "rabbitmq:stream", "kafka:stream", "kafka:queue", "redis:queue"]


@pytest.mark.parametrize(
    "kind", ["sqlite:queue"] + [pytest.param(one, marks=pytest.mark.broker) for one in BROKERS]
)
def test_thousands_of_handlers_work_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """They need no thread each, keep the order of each key, and are drained at SIGTERM."""
    keys = KEYS.get(kind, 5000)
    file = settings_of(request, kind, tmp_path, name)
    with file.open("a") as settings:
        settings.write("partitions = 4\n" if kind.endswith("stream") else "")
        settings.write(f"prefetch = {2 * keys}\n")  # partitions are not read evenly
    Path("service.py").write_text(APP.replace('"many"', repr(name)).replace("KEYS", str(keys)))
    log = Path("log")
    with gearshift.open(file) as bus:
        bus.producer(name).send_many(
            ([key, time] for time in (1, 2) for key in range(keys)),
            key_by=lambda sent: str(sent[0]),
        )
        command = [sys.executable, "-m", "gearshift", "run", "service:app", "--config", str(file)]
        with subprocess.Popen(command) as service:
            try:
                assert until(lambda: _written(log).count("\n") == 2 * keys + 1)
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
    assert times == {key: [1, 2] for key in range(keys)}


def _written(log: Path) -> str:
    return log.read_text() if log.exists() else ""
