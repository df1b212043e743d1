"""Traces that reach OpenTelemetry: one trace from the sender to the last handler."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from support.tracing import Recorder
from support.waiting import PATIENCE_S, take, until

import gearshift
from gearshift import App, Worker
from gearshift.telemetry.tracing import Tracing

SETTINGS = {
    "profile": "m",
    "profiles": {"m": {"backend": "memory"}},
    "channels": {"orders": {"max_attempts": 2, "retry_delay_s": 0.01}, "bills": {}},
}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@contextmanager
def running(app: App, bus: gearshift.Bus) -> Iterator[Worker]:
    """A worker of ``app`` for the block."""
    worker = Worker(app, bus)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def test_an_async_handler_is_in_its_span(recorder: Recorder) -> None:
    """What it sends belongs to it, although it runs on another thread."""
    app = App(plugins=[recorder.plugin])
    with gearshift.open(settings=SETTINGS, plugins=app.plugins) as bus:
        bills = bus.producer("bills")

        @app.handler("orders")
        async def bill(order: int) -> None:
            bills.submit(order)

        with running(app, bus):
            bus.producer("orders").send(1)
            take(bus.consumer("bills"), 1)[0].ack()
    (processed,) = recorder.spans("process orders")
    (billed,) = recorder.spans("send bills")
    assert billed.parent.span_id == processed.context.span_id


def test_a_batch_has_one_span_with_a_link_to_each_message(recorder: Recorder) -> None:
    """It belongs to no trace of theirs, as it belongs to all."""
    app = App(plugins=[recorder.plugin])

    @app.handler("orders", batch=3, linger_s=3600.0)
    def bill(orders: list[int]) -> None: ...

    with gearshift.open(settings=SETTINGS, plugins=app.plugins) as bus:
        bus.producer("orders").send_many([1, 2, 3])
        with running(app, bus) as worker:
            assert until(lambda: worker.report.acked == 3)
    (processed,) = recorder.spans("process orders")
    sent = {span.context.span_id for span in recorder.spans("send orders")}
    assert {link.context.span_id for link in processed.links} == sent
    assert processed.attributes["messaging.batch.message_count"] == 3
    assert processed.parent is None


def test_a_dead_letter_and_its_redrive_stay_in_the_trace(recorder: Recorder) -> None:
    """A message that is sent again outside of any span goes on with the trace that it carries."""
    with gearshift.open(settings=SETTINGS, plugins=[recorder.plugin]) as bus:
        bus.producer("orders").send(1)
        orders = bus.consumer("orders")
        take(orders, 1)[0].reject("no")
        (letter,) = take(bus.consumer("orders.dead"), 1)
        bus.producer("orders").send(letter.message)
        letter.ack()
        take(orders, 1)[0].ack()
    assert len({one.context.trace_id for one in recorder.spans()}) == 1
    first, again = recorder.spans("send orders")
    assert again.parent.span_id == first.context.span_id
    (rejected,) = recorder.spans("reject orders")
    assert rejected.attributes["gearshift.reason"] == "no"


def test_neither_keys_nor_bodies_are_told(recorder: Recorder) -> None:
    """Attributes hold sizes and ids; what may be personal stays with the message."""
    with gearshift.open(settings=SETTINGS, plugins=[recorder.plugin]) as bus:
        bus.producer("orders").send("secret-body", key="secret-key", headers={"x": "secret-header"})
        take(bus.consumer("orders"), 1)[0].ack()
    assert recorder.spans()
    assert "secret" not in " ".join(one.to_json() for one in recorder.spans())


def test_spans_arrive_over_otlp() -> None:
    """As a collector gets them: HTTP with protobuf, the parents' ids as they were sent."""
    arrived: list[ExportTraceServiceRequest] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(
            f"http://127.0.0.1:{server.server_port}/v1/traces", timeout=PATIENCE_S
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        plugin = Tracing(tracer_provider=provider)
        with gearshift.open(settings=SETTINGS, plugins=[plugin]) as bus:
            bus.producer("orders").send(1)
            take(bus.consumer("orders"), 1)[0].ack()
        assert provider.force_flush(int(PATIENCE_S * 1000))
        provider.shutdown()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    spans = {
        span.name: span
        for request in arrived
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    assert spans.keys() == {"send orders", "receive orders", "ack orders"}
    assert spans["ack orders"].parent_span_id == spans["send orders"].span_id
    assert spans["ack orders"].trace_id == spans["send orders"].trace_id


def test_without_an_sdk_nothing_is_recorded_and_nothing_fails() -> None:
    """The API alone is what libraries depend on: its spans are empty, and messages go on."""
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    with gearshift.open(settings=SETTINGS, plugins=[Tracing()]) as bus:
        bus.producer("orders").send(1)
        (delivery,) = take(bus.consumer("orders"), 1)
        assert "traceparent" not in dict(delivery.headers.pairs)
        delivery.ack()
