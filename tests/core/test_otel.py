"""Metrics through OpenTelemetry's SDK: those that Prometheus gets, by the semantic conventions."""

from __future__ import annotations

import gc
import weakref

import pytest
from support.tracing import Recorder
from support.waiting import take, until

import gearshift
from gearshift import App, Worker
from gearshift.telemetry import otel
from gearshift.telemetry.metrics import METRICS

SETTINGS = {
    "profile": "m",
    "profiles": {"m": {"backend": "memory"}},
    "channels": {
        "orders": {"max_attempts": 2, "retry_delay_s": 0.01},
        "events": {"semantics": "stream"},
    },
}
CHANNEL, GROUP = "messaging.destination.name", "messaging.consumer.group.name"
OPERATION, ERROR = "messaging.operation.name", "error.type"


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Reads anew for each instrument: a test looks more often than an SDK."""
    monkeypatch.setattr(otel, "_SAME_READING_S", -1.0)
    return Recorder()


def test_counts_and_durations_are_those_of_the_conventions(recorder: Recorder) -> None:
    """Sends and deliveries with their operation, failures with their error."""
    app = App(plugins=[recorder.metrics])
    with gearshift.open(settings=SETTINGS, plugins=app.plugins) as bus:

        @app.handler("orders", concurrency=3)
        def bill(order: int, delivery: gearshift.Delivery[int]) -> None:
            if delivery.attempt == 1:
                raise ValueError("once")

        @app.handler("events", batch=10, linger_s=0.01, concurrency=2)
        def store(events: list[int]) -> None:
            """Nothing comes."""

        worker = Worker(app, bus)
        worker.start()
        bus.producer("orders").send(1)
        assert until(lambda: worker.report.acked == 1)
        measured = recorder.measured
        limits = measured("gearshift.consumer.handler_limit", CHANNEL)
        assert limits == {("orders",): 3, ("events",): 20}
        worker.stop()
        sent = measured("messaging.client.sent.messages", CHANNEL, OPERATION, ERROR)
        consumed = measured("messaging.client.consumed.messages", CHANNEL, GROUP, OPERATION)
        settled = measured("gearshift.consumer.settled", CHANNEL, "gearshift.outcome")
        processed = measured("messaging.process.duration", OPERATION, ERROR)
        operated = measured("messaging.client.operation.duration", OPERATION)
    assert sent["orders", "send", None] == 1
    assert consumed["orders", "default", "receive"] == 2
    assert [settled["orders", way] for way in ("ack", "retry", "reject")] == [1, 1, 0]
    assert processed == {("process", None): 1, ("process", "ValueError"): 1}
    assert operated == {("send",): 1, ("retry",): 1, ("ack",): 1}


def test_depth_lag_and_dead_letters_are_the_brokers(recorder: Recorder) -> None:
    """Of the configured channels; what is not told has no point."""
    with gearshift.open(settings=SETTINGS, plugins=[recorder.metrics]) as bus:
        bus.producer("orders").send_many(range(3))
        bus.producer("events").send_many(range(4))
        take(bus.consumer("orders"), 1)[0].reject("no")
        late = bus.consumer("events", group="late")
        take(late, 1)[0].ack()
        late.flush()
        assert until(lambda: recorder.measured("gearshift.dead_letters", CHANNEL).get(
            ("orders.dead",)) == 1)  # fmt: skip
        assert recorder.measured("gearshift.broker.up") == {(): 1}
        assert recorder.measured("gearshift.group.lag", CHANNEL, GROUP) == {("events", "late"): 3}
        assert recorder.measured("gearshift.group.ready", CHANNEL).keys() == {("orders",)}


def test_a_bus_that_is_dropped_is_shown_no_more(recorder: Recorder) -> None:
    """The plugin does not keep it, and one plugin shows as many as there are."""
    first, second = (gearshift.open(settings=SETTINGS, plugins=[recorder.metrics]) for _ in "ab")
    for bus in (first, second):
        bus.producer("orders").send(1)
    up = "gearshift.producer.in_flight"
    assert recorder.measured(up, CHANNEL) == {("orders",): 0}
    for bus in (first, second):
        bus.close()
    gone = weakref.ref(first)
    del first, second, bus
    gc.collect()
    assert gone() is None
    assert recorder.measured(up) == {}


def test_one_reading_serves_all_instruments(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection asks the broker once, whatever the number of instruments."""
    monkeypatch.setattr(otel, "_SAME_READING_S", 60.0)
    with gearshift.open(settings=SETTINGS, plugins=[recorder.metrics]) as bus:
        asked: list[str] = []
        monkeypatch.setattr(bus, "groups", lambda channel, timeout_s: asked.append(channel) or [])
        recorder.measured("gearshift.broker.up")
        assert asked == ["orders", "events"]


def test_names_and_units_follow_the_conventions() -> None:
    """Two metrics share a name only if they are one counter; units are UCUM's."""
    named: dict[str, set[tuple[str, str]]] = {}
    for row in METRICS:
        named.setdefault(row.otel, set()).add((row.kind, row.unit))
        assert row.otel.startswith(("messaging.client.", "messaging.process.", "gearshift."))
        assert row.unit in ("s", "1") or row.unit[0] + row.unit[-1] == "{}"
    assert all(len(kinds) == 1 for kinds in named.values())
