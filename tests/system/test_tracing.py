"""One trace goes with a message on every broker, in its native headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from support.tracing import Recorder
from support.waiting import PATIENCE_S, take, until

import gearshift
from gearshift import App, Worker
from gearshift.operations.redrive import redrive

COLUMNS = ["memory:queue", "memory:stream", "sqlite:queue", "sqlite:stream"]
BROKERS = ["rabbitmq:queue", "rabbitmq:stream", "kafka:stream", "kafka:queue", "redis:queue"]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(params=COLUMNS + [pytest.param(one, marks=pytest.mark.broker) for one in BROKERS])
def bus(
    request: pytest.FixtureRequest, tmp_path: Any, recorder: Recorder
) -> Iterator[gearshift.Bus]:
    """A bus with the plugin, whose channels ``orders`` and ``bills`` are gone afterwards."""
    backend, _, semantics = request.param.partition(":")
    profile: dict[str, Any] = {"backend": backend}
    if backend == "sqlite":
        profile["path"] = str(tmp_path / "bus.db")
    elif backend == "kafka":
        profile["bootstrap_servers"] = [request.getfixturevalue(backend).url]
    elif backend != "memory":
        profile["url"] = request.getfixturevalue(backend).url
    channel = {"semantics": semantics, "max_attempts": 2, "retry_delay_s": 0.01}
    settings = {
        "profile": "p",
        "profiles": {"p": profile},
        "channels": {"orders": channel, "bills": channel},
    }
    with gearshift.open(settings=settings, plugins=[recorder.plugin]) as bus:
        yield bus
        for name in ("orders", "bills"):
            bus.delete(name)


def test_one_trace_leads_from_the_request_through_a_retry_to_the_next_channel(
    bus: gearshift.Bus, recorder: Recorder
) -> None:
    """Each attempt is a child of the send, and what the handler sends a child of its attempt."""
    app = App(plugins=[recorder.plugin])
    bills = bus.producer("bills")

    @app.handler("orders")
    def bill(order: int, delivery: gearshift.Delivery[int]) -> None:
        if delivery.attempt == 1:
            raise ValueError("once")
        bills.send(order)

    worker = Worker(app, bus)
    worker.start()
    tracer = recorder.provider.get_tracer("service")
    with tracer.start_as_current_span("request") as request:
        bus.producer("orders").send(1)
    with bus.consumer("bills") as consumer:
        take(consumer, 1)[0].ack()
    until(lambda: recorder.spans("ack orders"))
    until(lambda: recorder.spans("send orders") and recorder.spans("send bills"))
    worker.stop()
    trace_id = request.get_span_context().trace_id
    assert {one.context.trace_id for one in recorder.spans()} == {trace_id}
    (sent,) = recorder.spans("send orders")
    assert sent.kind is SpanKind.PRODUCER
    assert sent.parent.span_id == request.get_span_context().span_id
    first, second = recorder.spans("process orders")
    assert [one.parent.span_id for one in (first, second)] == [sent.context.span_id] * 2
    assert [one.attributes["gearshift.attempt"] for one in (first, second)] == [1, 2]
    assert [one.status.status_code for one in (first, second)] == [
        StatusCode.ERROR, StatusCode.UNSET
    ]  # fmt: skip
    assert first.attributes["error.type"] == "ValueError"
    assert first.events[0].name == "exception"
    (billed,) = recorder.spans("send bills")
    assert billed.parent.span_id == second.context.span_id
    assert [one.name for one in recorder.spans() if one.kind is SpanKind.CLIENT].count(
        "receive orders"
    ) == 2
    (retried,) = recorder.spans("retry orders")
    assert retried.attributes["messaging.operation.type"] == "settle"
    assert second.attributes["messaging.system"] == bus.backend
    assert second.attributes["messaging.consumer.group.name"] == "default"
    assert second.attributes["messaging.message.id"] == sent.attributes["messaging.message.id"]


def test_a_dead_letter_its_redrive_and_a_replay_stay_in_the_trace(
    bus: gearshift.Bus, recorder: Recorder
) -> None:
    """A redriven message is a child of its first send; who reads a stream again is in it too."""
    orders = bus.consumer("orders")
    tracer = recorder.provider.get_tracer("service")
    with tracer.start_as_current_span("request") as request:
        bus.producer("orders").send(1)
    take(orders, 1)[0].reject("no")
    assert until(lambda: recorder.spans("dead_letter orders"))
    assert redrive(bus, "orders", most=1, idle_timeout_s=PATIENCE_S).moved == 1
    take(orders, 1)[0].ack()
    received = 2
    if bus.semantics("orders") == "stream":
        with bus.consumer("orders", ephemeral=True, start="earliest") as replay:
            for delivery in take(replay, 2):
                delivery.ack()
        received = 4
    trace_id = request.get_span_context().trace_id
    assert {one.context.trace_id for one in recorder.spans()} == {trace_id}
    first, again = recorder.spans("send orders")
    assert again.parent.span_id == first.context.span_id
    assert (
        len(recorder.spans("receive orders")) - len(recorder.spans("receive orders.")) == received
    )
    (buried,) = recorder.spans("dead_letter orders")
    assert buried.parent.span_id == first.context.span_id
    assert buried.attributes["gearshift.reason"] == "no"
    assert buried.attributes["messaging.system"] == bus.backend
