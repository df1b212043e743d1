"""``gearshift bench``, alone and beside the broker's own client."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gearshift import config
from gearshift.cli import cli
from gearshift.driver.measuring import Load, Received, Stopwatch, in_threads
from gearshift.operations.bench import WORKS, Plan, measure
from native_brokers import Kafka, RabbitMQ, Redis

SETTINGS = """
profile = "dev"
[profiles.dev]
backend = "sqlite"
path = "dev.db"
[profiles.gone]
backend = "redis"
url = "redis://127.0.0.1:9/0"
timeout_s = 0.5
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with settings, to work in."""
    (tmp_path / "gearshift.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("semantics", ["queue", "stream"])
def test_every_work_is_measured_and_leaves_nothing(semantics: str) -> None:
    """A figure for each size and number of threads; the channels are gone afterwards."""
    asked = "--messages 200 --size 64 --size 5000 --threads 1 --threads 3 --rounds 1 -o json"
    done = CliRunner().invoke(cli, ["bench", "dev", "--semantics", semantics, *asked.split()])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert [(one["work"], one["size"], one["threads"]) for one in figures] == [
        (work, size, threads)
        for size in (64, 5000)
        for work, threads in (
            ("send", 1), ("send", 3), ("send_many", 1), ("receive", 1), ("end_to_end", 1)
        )
    ]  # fmt: skip
    for one in figures:
        measured = [one[name] for name in ("p50_ms", "p99_ms")]
        if one["work"] != "end_to_end":
            measured = [one[name] for name in ("rate", "cpu_us")]
        assert all(value > 0 for value in measured), one
        assert (one["raw"] is not None) == (semantics == "queue")
    assert [path.name for path in Path().glob("dev.db.bench_*")] == []
    with closing(sqlite3.connect("dev.db")) as file:
        assert file.execute("SELECT name FROM channel").fetchall() == []


def test_a_table_is_shown() -> None:
    """Gearshift's row, and below it the client's with the ratio; how it does it is a remark."""
    asked = "--messages 100 --work send_many --rounds 3"
    done = CliRunner().invoke(cli, ["bench", *asked.split()])
    assert done.exit_code == 0, done.output
    head, ours, raw = done.stdout.splitlines()
    assert head.split()[:4] == ["work", "client", "bytes", "messages"]
    assert ours.split()[:4] == ["send_many", "Gearshift", "256", "100"]
    assert raw.split()[0] == "sqlite3"
    assert re.search(r"\d\.\d\d \(\d+\.\d\d to \d+\.\d\d\)$", raw.rstrip())
    assert "send_many: INSERT, a commit for 500" in done.stderr


def test_alone_nothing_is_measured_beside() -> None:
    """One row, and no remark."""
    asked = "--messages 100 --work send_many --rounds 1 --alone"
    done = CliRunner().invoke(cli, ["bench", *asked.split()])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 2
    assert "INSERT" not in done.stderr


def _beside(profile: dict[str, Any], client: str) -> None:
    """All works are measured with that client, which loses nothing: else it would be an error."""
    loaded = config.load(settings={"profile": "p", "profiles": {"p": profile}})
    for work in WORKS:
        threads = 3 if work == "send" else 1
        found = measure(loaded, "", Plan(work, Load(30, threads=threads), rounds=2))
        assert found.client is not None
        assert found.client.startswith(client)
        assert found.how
        measured = "p50_ms" if work == "end_to_end" else "rate"
        assert len(found.ratios(measured)) == 2
        assert all(ratio > 0 for ratio in found.ratios(measured))


@pytest.mark.broker
def test_pika_is_measured_beside(rabbitmq: RabbitMQ) -> None:
    """On a queue."""
    _beside({"backend": "rabbitmq", "url": rabbitmq.url}, "pika")


@pytest.mark.broker
def test_confluent_kafka_is_measured_beside(kafka: Kafka) -> None:
    """On a stream."""
    _beside({"backend": "kafka", "bootstrap_servers": [kafka.url]}, "confluent-kafka")


@pytest.mark.broker
def test_redis_py_is_measured_beside(redis: Redis) -> None:
    """On a queue."""
    _beside({"backend": "redis", "url": redis.url}, "redis-py")


def test_a_broker_that_is_not_there_is_one_error() -> None:
    """Exit code 3, and no figures."""
    done = CliRunner().invoke(cli, ["bench", "gone", "--messages", "100"])
    assert done.exit_code == 3, done.output
    assert done.stdout == ""
    assert "error: redis" in done.stderr


def test_an_unknown_profile_is_one_error() -> None:
    """It names those that there are."""
    done = CliRunner().invoke(cli, ["bench", "nowhere"])
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
    assert "dev" in done.stderr


def test_an_error_of_any_thread_is_raised() -> None:
    """And no thread goes on sending."""
    sent: list[bytes] = []

    def send(key: str, body: bytes) -> None:
        sent.append(body)
        if len(sent) == 5:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        in_threads(send, Load(1000, threads=4))
    assert len(sent) < 20


def test_what_came_twice_counts_once() -> None:
    """So a client cannot seem quicker than it is, nor hide a loss."""
    received = Received(3)
    bodies = [body for _, body in Load(3)]
    received.add(bodies[0], bodies[0])
    received.add(bodies[0], bodies[1])
    assert not received.complete
    assert received.sample().done == 2


@pytest.mark.parametrize("side", ["send", "serve"])
def test_the_stopwatch_ends_with_the_first_error(side: str) -> None:
    """Of whichever side; the other is told by ``ended``."""
    watch = Stopwatch(Load(10, pace=1000))

    def fail(_body: bytes = b"") -> None:
        raise ConnectionError(side)

    def drop(_body: bytes) -> None:
        return

    def serve() -> None:
        watch.ready()
        while not watch.ended:
            time.sleep(0.001)

    send = fail if side == "send" else drop
    with pytest.raises(ConnectionError, match=side):
        watch.run(send, serve if side == "send" else fail)
