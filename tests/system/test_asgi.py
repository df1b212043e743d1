"""The FastAPI example on a real HTTP server: taken, sent, retried, handled, watched, drained."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, until

from native_brokers.ports import reserve_ports

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "fastapi_service"

Ask = Callable[..., tuple[int, str]]


@pytest.fixture(
    params=["dev", *(pytest.param(one, marks=pytest.mark.broker) for one in ("rabbit", "kafka"))]
)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """The one line that selects the broker, as a variable, and where that is."""
    found = {**os.environ, "GEARSHIFT_PROFILE": request.param}
    if request.param == "rabbit":
        found["RABBITMQ_URL"] = request.getfixturevalue("rabbitmq").url
    elif request.param == "kafka":
        found["KAFKA_BOOTSTRAP"] = request.getfixturevalue("kafka").url
    return found


@pytest.fixture
def service(
    environment: dict[str, str], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], Ask]]:
    """The running example, and a way to ask it: status and body."""
    shutil.copy(EXAMPLE / "gearshift.toml", tmp_path)
    (port,) = reserve_ports(1)
    argv = ["-m", "uvicorn", "--app-dir", str(EXAMPLE), "--port", str(port), "service:api"]
    process = subprocess.Popen(
        [sys.executable, *argv],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip

    def ask(path: str, method: str = "GET") -> tuple[int, str]:
        url = f"http://127.0.0.1:{port}{path}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method=method), timeout=PATIENCE_S
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    try:
        assert until(lambda: ask("/messaging/healthz")[0] or process.poll() is not None)
        yield process, ask
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_an_order_is_taken_by_http_and_billed(service: tuple[subprocess.Popen[str], Ask]) -> None:
    """202 means stored; each is billed, also those whose first attempt fails."""
    process, ask = service
    assert until(lambda: ask("/messaging/healthz")[0] == 200), ask("/messaging/healthz")
    for number in range(1, 22):
        status, body = ask(f"/orders/{number}?cents={number * 100}", "POST")
        assert status == 202, body
        assert json.loads(body)["id"]
    for number in range(1, 22):
        assert until(lambda number=number: ask(f"/orders/{number}")[0] == 200), number
        assert json.loads(ask(f"/orders/{number}")[1]) == {
            "order_id": number, "cents": number * 100
        }  # fmt: skip
    metrics = ask("/messaging/metrics")[1]
    assert 'gearshift_messages_sent_total{channel="orders"} 21.0' in metrics
    settled = '{channel="orders",group="billing",outcome="retry"} 3.0'
    assert f"gearshift_messages_settled_total{settled}" in metrics
    assert ask("/messaging/nothing")[0] == 404
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGTERM or process.returncode == 0, output
    assert "Application shutdown complete" in output


def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """The service answers, and its health says what is missing; a wrong setting ends it."""
    settings = (EXAMPLE / "gearshift.toml").read_text()
    (tmp_path / "gearshift.toml").write_text(settings)
    (nowhere,) = reserve_ports(1)
    environment = {
        **os.environ,
        "GEARSHIFT_PROFILE": "rabbit",
        "RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{nowhere}/%2F",
    }
    script = (
        "import asyncio, json\n"
        "from service import messaging\n"
        "async def main():\n"
        "    async with messaging():\n"
        "        messages = []\n"
        "        async def send(message): messages.append(message)\n"
        "        scope = {'type': 'http', 'path': '/healthz', 'headers': []}\n"
        "        await messaging.telemetry(scope, None, send)\n"
        "        print(messages[0]['status'], messages[1]['body'].decode())\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env={**environment, "PYTHONPATH": str(EXAMPLE)},
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status, _, body = done.stdout.partition(" ")
    assert status == "503"
    (problem,) = json.loads(body)["problems"]
    assert problem.startswith("handlers have not started: ")
    assert "Connection refused" in problem
