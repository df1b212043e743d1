"""The metrics of a bus for OpenTelemetry: a plugin, which needs ``gearshift[otel]``."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from gearshift.bus import Bus
from gearshift.delivery import BaseDelivery, Delivery
from gearshift.errors import GearshiftError
from gearshift.extras import importing
from gearshift.hooks import Outgoing, hookimpl
from gearshift.message import SendResult
from gearshift.stats import Timings
from gearshift.telemetry.conventions import error_type, of_delivery, operation
from gearshift.telemetry.depths import TIMEOUT_S
from gearshift.telemetry.metrics import METRICS, Metric, Reader, Sample

with importing("otel"):
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

__all__ = ["Metrics"]

#: Instruments are observed one after the other; within this time they show the same reading.
_SAME_READING_S = 1.0

_ATTRIBUTES = {
    "channel": "messaging.destination.name",
    "group": "messaging.consumer.group.name",
    "outcome": "gearshift.outcome",
    "error": "error.type",
}
#: What the conventions require of their own counters.
_OPERATIONS = {
    "messaging.client.sent.messages": "send",
    "messaging.client.consumed.messages": "receive",
}
_Reading: TypeAlias = dict[Metric, list[Sample]]


class Metrics:
    """A plugin: ``gearshift.open(plugins=[Metrics()])`` or ``App(plugins=[Metrics()])``.

    Any thread. Shows the metrics of each bus that was opened with it, those that Prometheus gets:
    counts and states are read when the SDK collects, durations are recorded as they arise. Nothing
    is recorded until the service has set up an SDK. At each collection the broker is asked what
    waits for the groups of ``depth_of``, the configured channels if it is None, for up to
    ``timeout_s`` seconds.
    """

    def __init__(
        self,
        *,
        depth_of: Sequence[str] | None = None,
        timeout_s: float = TIMEOUT_S,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._depth_of = depth_of
        self._timeout_s = timeout_s
        self._lock = threading.Lock()  # guards _readings
        self._readings: WeakKeyDictionary[Bus, tuple[float, _Reading]] = WeakKeyDictionary()
        meter = metrics.get_meter("gearshift", meter_provider=meter_provider)
        for name in dict.fromkeys(row.otel for row in METRICS if row.kind != "durations"):
            self._create(meter, [row for row in METRICS if row.otel == name])
        self._operated, self._processed = (
            meter.create_histogram(row.otel, row.unit, row.text)
            for row in METRICS
            if row.kind == "durations"
        )

    @hookimpl
    def gearshift_opened(self, bus: Bus) -> None:
        """From now on this bus is shown, for as long as somebody has it."""
        with self._lock:
            self._readings[bus] = (float("-inf"), {})

    @hookimpl
    def gearshift_send(self, outgoing: Outgoing) -> None:
        """Record how long the broker takes to confirm it."""
        begun_at = time.perf_counter()
        attributes = operation(outgoing.backend, outgoing.channel, "send", "send")

        def record(result: SendResult) -> None:
            failed = error_type(result if isinstance(result, GearshiftError) else None)
            self._operated.record(time.perf_counter() - begun_at, attributes | failed)

        outgoing.on_result(record)

    @hookimpl(wrapper=True, tryfirst=True)
    def gearshift_handle(self, deliveries: Sequence[Delivery[Any]]) -> Generator[None, Any, Any]:
        """Record how long an attempt takes, which may be one of a batch."""
        begun_at = time.perf_counter()
        failed: dict[str, str] = {}
        try:
            return (yield)
        except BaseException as error:
            failed = error_type(error)
            raise
        finally:
            attributes = of_delivery(deliveries[0], "process", "process") | failed
            self._processed.record(time.perf_counter() - begun_at, attributes)

    @hookimpl
    def gearshift_settled(self, delivery: BaseDelivery[Any], outcome: str, took_s: float) -> None:
        """Record how long settling took."""
        self._operated.record(took_s, of_delivery(delivery, outcome, "settle"))

    def _create(self, meter: Meter, rows: Sequence[Metric]) -> None:
        """One instrument for the rows of that name."""
        first = rows[0]
        if first.kind == "counter":
            create: Any = meter.create_observable_counter
        elif first.unit.startswith("{"):  # a number of things, which may be added up
            create = meter.create_observable_up_down_counter
        else:
            create = meter.create_observable_gauge
        create(first.otel, [partial(self._observe, rows)], first.unit, first.text)

    def _observe(self, rows: Sequence[Metric], _: CallbackOptions) -> Iterator[Observation]:
        with self._lock:
            buses = list(self._readings)
        for bus in buses:
            reading = self._read(bus)
            for row in rows:
                for sample in reading.get(row, ()):
                    assert not isinstance(sample.value, Timings)
                    yield Observation(sample.value, _attributes(bus, row, sample))

    def _read(self, bus: Bus) -> _Reading:
        with self._lock:
            read_at, reading = self._readings[bus]
        if time.monotonic() - read_at > _SAME_READING_S:
            names = tuple(bus.config.channels) if self._depth_of is None else self._depth_of
            reading = dict(Reader(bus, names, self._timeout_s).read())
            with self._lock:
                self._readings[bus] = (time.monotonic(), reading)
        return reading


def _attributes(bus: Bus, row: Metric, sample: Sample) -> dict[str, str]:
    attributes = {"messaging.system": bus.backend}
    if row.otel in _OPERATIONS:
        attributes["messaging.operation.name"] = _OPERATIONS[row.otel]
    names = [_ATTRIBUTES[label] for label in row.labels]
    return attributes | dict(zip(names, sample.labels, strict=True))
