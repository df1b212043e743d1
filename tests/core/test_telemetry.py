"""Metrics and health as operators get them: over HTTP, from a bus and from ``gearshift run``."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.waiting import PATIENCE_S, take, until

import gearshift
from gearshift import App, Worker, errors
from gearshift.operations.redrive import redrive
from gearshift.stats import ReceiveStats, SendStats, Stats
from gearshift.telemetry import health
from gearshift.telemetry.metrics import METRICS
from gearshift.telemetry.prometheus import BusCollector
from gearshift.telemetry.server import TelemetryServer, parse_address
from native_brokers.ports import reserve_ports


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """(name, label values in order of their names ...) → value."""
    status, text = get(port, "/metrics")
    assert status == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_tell_what_was_sent_received_and_handled(bus: gearshift.Bus) -> None:
    app = App()

    @app.handler("orders", group="billing")
    def handle(value: int) -> None:
        if value == 3:
            raise gearshift.Reject("three")

    with TelemetryServer(bus, "127.0.0.1", 0) as server:
        worker = Worker(app, bus)
        worker.start()
        bus.producer("orders").send_many(range(5))
        bus.producer("events").send_many(range(7))
        assert until(lambda: worker.report.acked == 4 and worker.report.rejected == 1)
        assert scraped(server.port)["gearshift_handler_limit", "orders", "billing"] == 1
        worker.stop()
        dead_letters = "gearshift_dead_letters", "orders.dead"
        assert until(lambda: scraped(server.port).get(dead_letters) == 1)
        found = scraped(server.port)
    assert found["gearshift_messages_sent_total", "orders"] == 5
    assert found["gearshift_messages_sent_total", "orders.dead"] == 1
    assert found["gearshift_send_seconds_count", "orders"] == 5
    assert found["gearshift_messages_delivered_total", "orders", "billing"] == 5
    assert found["gearshift_messages_settled_total", "orders", "billing", "ack"] == 4
    assert found["gearshift_messages_settled_total", "orders", "billing", "reject"] == 1
    assert found["gearshift_handler_seconds_count", "orders", "billing", "ack"] == 4
    assert found["gearshift_handler_seconds_bucket", "orders", "billing", "+Inf", "ack"] == 4
    assert found["gearshift_in_flight_messages", "orders"] == 0
    assert found["gearshift_in_hand_messages", "orders", "billing"] == 0
    assert found["gearshift_handler_limit", "orders", "billing"] == 0
    assert found["gearshift_broker_up",] == 1
    assert found["gearshift_ready_messages", "orders", "billing"] == 0
    assert not any("id" in key or "key" in key for key in found)


def test_lag_is_told_of_configured_channels(bus: gearshift.Bus) -> None:
    bus.producer("events").send_many(range(7))
    with bus.consumer("events", group="late") as consumer:
        take(consumer, 1)[0].ack()
        consumer.flush()
        lag = "gearshift_lag_messages", "events", "late"
        with TelemetryServer(bus, "127.0.0.1", 0) as server:
            assert until(lambda: scraped(server.port).get(lag) == 6)


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_dead_letters_are_counted_until_they_are_redriven(bus: gearshift.Bus, channel: str) -> None:
    """Of a queue and of a stream, which nobody has read before."""
    dead = f"{channel}.dead"
    assert bus.dead_letters(dead) == 0
    bus.producer(channel).send_many(range(3))
    with bus.consumer(channel, group="billing") as consumer:
        for delivery in take(consumer, 3):
            delivery.reject("no")
        assert until(lambda: bus.dead_letters(dead) == 3)
    redrive(bus, channel, idle_timeout_s=0.1)
    assert bus.dead_letters(dead) == 0


def depths(collector: BusCollector) -> dict[str, float]:
    """What a scrape says of the broker: of a channel's groups the sum of what waits."""
    found: dict[str, float] = {}
    for family in collector.collect():
        for sample in family.samples:
            if sample.name in ("gearshift_broker_up", "gearshift_ready_messages"):
                place = sample.labels.get("channel", "up")
                found[place] = found.get(place, 0) + sample.value
            if sample.name == "gearshift_depth_age_seconds":
                found[f"age of {sample.labels['channel']}"] = sample.value
    return found


def test_a_broker_that_does_not_answer_holds_up_no_scrape(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once at a time; meanwhile there is what it told last, and how old that is."""
    bus.producer("orders").send(1)
    bus.declare("events")
    collector = BusCollector(bus, depth_of=["orders", "events"], timeout_s=0.05)
    assert until(lambda: depths(collector)["up"] == 1)
    asked, answers, groups = [], threading.Event(), bus.groups

    def hanging(channel: str, *, timeout_s: float) -> object:
        asked.append(channel)
        answers.wait(PATIENCE_S)
        return groups(channel, timeout_s=timeout_s)

    monkeypatch.setattr(bus, "groups", hanging)
    assert until(lambda: depths(collector)["up"] == 0)
    first, second = depths(collector), depths(collector)
    assert asked == ["orders"]
    assert (first["up"], second["up"]) == (0, 0)
    assert first["orders"] == second["orders"] > 0
    assert second["age of orders"] > first["age of orders"] > 0
    answers.set()
    assert until(lambda: depths(collector)["up"] == 1)


def test_a_broker_that_is_down_is_asked_about_one_channel(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are on the same broker; nothing is told of what was never known."""
    asked = []

    def down(channel: str, *, timeout_s: float) -> object:
        asked.append(channel)
        raise errors.ConnectionFailed("down")

    monkeypatch.setattr(bus, "groups", down)
    assert depths(BusCollector(bus, depth_of=["orders", "events"])) == {"up": 0}
    assert asked == ["orders"]


def test_health_is_a_status_and_says_why(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TelemetryServer(bus, "127.0.0.1", 0) as server:
        assert get(server.port, "/healthz") == (
            200,
            '{"healthy": true, "problems": [], "degraded": []}',
        )
        monkeypatch.setattr(health, "_limit_s", lambda bus, stats: 1e-9)
        bus.producer("orders").send(1)
        consumer = bus.consumer("orders", group="billing", prefetch=1)
        take(consumer, 1)
        status, text = get(server.port, "/healthz")
        assert status == 503
        assert "are being handled" in json.loads(text)["problems"][0]
        assert get(server.port, "/")[0] == 404


def test_a_long_job_is_no_reason_for_a_restart(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``max_processing_s`` handlers that are all busy for hours are told, at status 200."""
    busy = ReceiveStats(channel="orders", group="g", in_hand=1, stalled_s=7200, longest_s=7200)
    monkeypatch.setattr(bus, "stats", lambda: Stats(sending=(), receiving=(busy,)))
    assert health.problems(bus) == []
    (told,) = health.degraded(bus)
    assert "unsettled for 7200 s" in told
    monkeypatch.setattr(health, "_limit_s", lambda bus, stats: 600.0)
    (problem,) = health.problems(bus)
    assert "none was settled for 7200 s" in problem


@pytest.mark.parametrize("side", ["sending", "receiving"])
def test_a_broker_that_says_nothing_is_told_before_20_s(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """With the reason, where there is one; not after one heartbeat that is late."""

    def told(silent_s: float) -> list[str]:
        heard = {"silent_s": silent_s, "disconnected": "refused"}
        sending = SendStats(channel="c", **(heard if side == "sending" else {}))
        receiving = ReceiveStats(channel="c", group="g", **(heard if side == "receiving" else {}))
        stats = Stats(sending=(sending,), receiving=(receiving,))
        monkeypatch.setattr(bus, "stats", lambda: stats)
        return health.problems(bus)

    assert told(15.0) == []
    (problem,) = told(19.0)
    assert "nothing was heard from the broker for 19 s: refused" in problem


def test_an_address_that_is_taken_is_a_clear_error(bus: gearshift.Bus) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.ConfigError, match=f"127.0.0.1:{port}: Address already in use"):
            TelemetryServer(bus, "127.0.0.1", port)


@pytest.mark.parametrize("text", ["", "x", "70000", "host:", "1.2.3.4:http", "²"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigError, match="not an address"):
        parse_address(text)


def test_addresses() -> None:
    assert parse_address("9100") == ("127.0.0.1", 9100)
    assert parse_address("0.0.0.0:9100") == ("0.0.0.0", 9100)
    assert parse_address("[::1]:9100") == ("::1", 9100)


def test_without_the_library_it_says_what_to_install(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(errors.MissingExtra, match="prometheus_client") as caught:
        TelemetryServer(bus, "127.0.0.1", 0)
    assert "gearshift[prometheus]" in str(caught.value.hint)


def test_each_process_of_a_run_serves_its_own(tmp_path: Path) -> None:
    """The next port is the next process's; one that was replaced has its port again."""
    (tmp_path / "shop.py").write_text(
        "import os, gearshift\napp = gearshift.App()\n"
        "@app.handler('orders')\ndef bill(value: str, delivery: gearshift.Delivery) -> None:\n"
        "    if delivery.attempt == 1: os._exit(1)\n"
    )
    (tmp_path / "gearshift.toml").write_text(
        '[profiles.p]\nbackend = "sqlite"\npath = "q.db"\n[channels.orders]\n'
    )
    port, _ = reserve_ports(2)
    run = [str(Path(sys.executable).with_name("gearshift")), "run", "shop:app", "--processes", "2"]
    log = tmp_path / "run.log"
    with log.open("wb") as errors_of_run:
        process = subprocess.Popen(
            [*run, "--metrics", str(port)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            stderr=errors_of_run,
        )

    def serving(number: int) -> bool:
        try:
            return get(number, "/healthz")[0] == 200
        except (OSError, HTTPException):  # the latter in the middle of an answer, as it ends
            return False

    def consumers(number: int) -> float:
        return scraped(number).get(("gearshift_consumers", "orders", "default"), 0)

    try:
        assert until(lambda: serving(port) and serving(port + 1)), log.read_text()
        assert until(lambda: consumers(port) == consumers(port + 1) == 1)
        with gearshift.open(tmp_path / "gearshift.toml") as bus:
            bus.producer("orders").send("die")
            assert until(lambda: not (serving(port) and serving(port + 1)))
            assert until(lambda: serving(port) and serving(port + 1))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    assert not serving(port)


def test_every_metric_is_documented_and_no_other(bus: gearshift.Bus) -> None:
    """By the names that a scrape shows."""
    document = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()
    collector = BusCollector(bus, depth_of=["events"])
    names = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in collector.collect()
    }
    assert names == set(re.findall(r"`(gearshift_\w+)`", document))
    through_otel = set()
    for row in re.findall(r"^\| (`(?:messaging|gearshift)\..+?) \|", document, re.M):
        first, *others = re.findall(r"`([\w.]+)`", row)
        prefix = first if first.endswith(".") else ""
        through_otel |= {prefix + name for name in (others if prefix else (first, *others))}
    assert {metric.otel for metric in METRICS} <= through_otel
