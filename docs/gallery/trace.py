"""Draw a trace of a real run on RabbitMQ: ``make gallery``. Starts and stops its own broker."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.table import Table
from rich.text import Text

import gearshift
from gearshift.operations.redrive import redrive
from gearshift.telemetry.tracing import Tracing
from native_brokers import RabbitMQ

FILE = Path(__file__).with_name("trace.svg")
BAR = 46
COLOURS = {"send": "green", "process": "cyan", "retry": "yellow", "reject": "red"}


def main() -> None:
    """An order that fails, is retried, dies, is redriven and billed, and its trace."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with RabbitMQ() as rabbitmq:
        run(rabbitmq.url, provider)
    provider.shutdown()
    console = Console(record=True, width=96, file=io.StringIO())
    console.print(waterfall(exporter.get_finished_spans()))
    # Its own format loads a font from elsewhere.
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.S)
    FILE.write_text(console.export_svg(title="one order, one trace", code_format=form))
    print(f"{FILE.name}: {len(exporter.get_finished_spans())} spans")


def run(url: str, provider: TracerProvider) -> None:
    """Two attempts fail; redriven it is billed."""
    app = gearshift.App(plugins=[Tracing(tracer_provider=provider)])
    dead, billed = threading.Event(), threading.Event()
    settings = {
        "profiles": {"rabbit": {"backend": "rabbitmq", "url": url}},
        "channels": {"orders": {"max_attempts": 2, "retry_delay_s": 0.02}, "bills": {}},
    }
    with gearshift.open(settings=settings, plugins=app.plugins) as bus:
        bills = bus.producer("bills")
        is_mended = False

        @app.handler("orders")
        def bill(order: int, delivery: gearshift.Delivery[int]) -> None:
            if not is_mended:
                dead.set() if delivery.attempt == 2 else None
                raise ConnectionError("the bank does not answer")
            bills.send(order)

        @app.handler("bills")
        def post(order: int) -> None:
            billed.set()

        worker = gearshift.Worker(app, bus)
        worker.start()
        worker.ready()
        orders = bus.producer("orders")
        with provider.get_tracer("shop").start_as_current_span("POST /orders"):
            orders.send(1)
        dead.wait()
        is_mended = True
        redrive(bus, "orders", most=1, idle_timeout_s=30.0)
        billed.wait()
        worker.stop()


def waterfall(spans: Sequence[ReadableSpan]) -> Table:
    """A line for each span, below its parent, with a bar from its start to its end."""
    begin = min(span.start_time or 0 for span in spans)
    whole = max(span.end_time or 0 for span in spans) - begin
    table = Table("SPAN", "ATTEMPT", f"0 to {whole / 1e6:.0f} ms", "MS", box=None)
    for depth, span in in_order(spans):
        start, end = (span.start_time or 0) - begin, (span.end_time or 0) - begin
        first = start * BAR // whole
        length = max(1, round((end - start) * BAR / whole))
        colour = "red" if not span.status.is_ok and span.status.description else (
            COLOURS.get(span.name.split()[0], "blue")
        )  # fmt: skip
        attributes = span.attributes or {}
        table.add_row(
            Text("  " * depth + span.name),
            str(attributes.get("gearshift.attempt", "")),
            Text(" " * min(first, BAR - 1) + "█" * min(length, BAR - min(first, BAR - 1)), colour),
            Text(f"{(end - start) / 1e6:.1f}"),
        )
        if problem := attributes.get("error.type"):
            table.add_row(Text("  " * (depth + 1) + str(problem), "red"), "", "", "")
    return table


def in_order(
    spans: Sequence[ReadableSpan], parent: int | None = None, depth: int = 0
) -> Iterator[tuple[int, ReadableSpan]]:
    """Each span with its depth, children behind their parent by the time of their start."""
    for span in sorted(spans, key=lambda one: one.start_time or 0):
        if (span.parent.span_id if span.parent else None) == parent and span.context:
            yield depth, span
            yield from in_order(spans, span.context.span_id, depth + 1)


if __name__ == "__main__":
    main()
