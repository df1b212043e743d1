"""An OpenTelemetry SDK that keeps what it is given."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gearshift.telemetry.otel import Metrics
from gearshift.telemetry.tracing import Tracing


class Recorder:
    """An SDK that keeps its spans and metrics here, and the plugins that feed it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.plugin = Tracing(tracer_provider=self.provider)
        self.metrics = Metrics(meter_provider=MeterProvider([self._reader]))

    def spans(self, name: str = "") -> Sequence[ReadableSpan]:
        """Those that have ended, in that order."""
        return [one for one in self._exporter.get_finished_spans() if one.name.startswith(name)]

    def measured(self, metric: str, *attributes: str) -> dict[tuple[str | None, ...], float]:
        """Values of these attributes → value; of a histogram how many there were."""
        data = self._reader.get_metrics_data()
        points = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for one in scope.metrics
            if one.name == metric
            for point in one.data.data_points
        ]
        return {
            tuple(point.attributes.get(name) for name in attributes): (
                point.value if hasattr(point, "value") else point.count
            )
            for point in points
        }
