"""The metrics of a bus for Prometheus. Importing this needs ``gearshift[prometheus]``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gearshift.bus import Bus
from gearshift.stats import BOUNDS_S, Timings
from gearshift.telemetry.depths import TIMEOUT_S
from gearshift.telemetry.metrics import Reader

__all__ = ["BusCollector"]

_BOUNDS = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
_FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "durations": HistogramMetricFamily,
}


class BusCollector(Collector):
    """Register it: ``registry.register(BusCollector(bus))``. Any thread.

    With ``depth_of`` the broker is asked, at every scrape, what waits for the groups of these
    channels, and how many dead letters theirs are. A scrape waits for all answers together for up
    to ``timeout_s`` seconds, then gives the last ones: ``gearshift_depth_age_seconds`` says how old
    they are, ``gearshift_broker_up`` whether all are new. What a broker does not tell is left out.
    """

    def __init__(
        self, bus: Bus, *, depth_of: Sequence[str] = (), timeout_s: float = TIMEOUT_S
    ) -> None:
        self._reader = Reader(bus, depth_of, timeout_s)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        for metric, samples in self._reader.read():
            family = _FAMILIES[metric.kind](metric.prometheus, metric.text, labels=metric.labels)
            for labels, value in samples:
                family.add_metric(labels, *_as_arguments(value))
            yield family


def _as_arguments(value: float | Timings) -> tuple[Any, ...]:
    if not isinstance(value, Timings):
        return (value,)
    return list(zip(_BOUNDS, accumulate(value.counts), strict=True)), value.total_s
