"""The metrics of a bus for Prometheus. Importing this needs ``gearshift[prometheus]``.

Labels are ``channel`` and ``group``, never a message's id or key. A group of ephemeral consumers,
``tail`` for one, has the empty label.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gearshift.bus import Bus
from gearshift.errors import GearshiftError
from gearshift.stats import BOUNDS_S, ReceiveStats, SendStats, Timings

__all__ = ["BusCollector"]

log = logging.getLogger("gearshift.telemetry")

_BOUNDS = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]

#: What a group's state is called: field of GroupStatus → name and help of the metric.
_DEPTH = {
    "ready": ("gearshift_ready_messages", "Messages that wait for a group of a queue."),
    "in_flight": ("gearshift_unsettled_messages_at_broker", "Handed out by the broker, unsettled."),
    "lag": ("gearshift_lag_messages", "Messages behind the positions of a group of a stream."),
    "oldest_age_s": ("gearshift_oldest_message_age_seconds", "Age of the oldest of these."),
    "consumers": ("gearshift_group_consumers", "Consumers of a group, of all processes."),
}


class BusCollector(Collector):
    """Register it: ``registry.register(BusCollector(bus))``. Any thread.

    With ``depth_of`` the broker is asked, at every scrape, what waits for the groups of these
    channels, for up to ``timeout_s`` seconds each; ``gearshift_broker_up`` says whether it
    answered. What a broker does not tell is left out.
    """

    def __init__(self, bus: Bus, *, depth_of: Sequence[str] = (), timeout_s: float = 2.0) -> None:
        self._bus = bus
        self._depth_of = depth_of
        self._timeout_s = timeout_s

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        stats = self._bus.stats()
        yield from _sending(stats.sending)
        yield from _receiving(stats.receiving)
        if self._depth_of:
            yield from self._depth()

    def _depth(self) -> Iterator[Metric]:
        metrics = {
            field: GaugeMetricFamily(name, text, labels=("channel", "group"))
            for field, (name, text) in _DEPTH.items()
        }
        up = 1.0
        for channel in self._depth_of:
            try:
                for status in self._bus.groups(channel, timeout_s=self._timeout_s):
                    for field, metric in metrics.items():
                        if (value := getattr(status, field)) is not None:
                            metric.add_metric((channel, status.group), value)
            except GearshiftError as error:
                log.debug("no depth of %r: %s", channel, error)
                up = 0.0
        yield GaugeMetricFamily("gearshift_broker_up", "1 if the broker told all depths.", up)
        yield from metrics.values()


def _sending(stats: Sequence[SendStats]) -> Iterator[Metric]:
    labels = ("channel",)
    stored = CounterMetricFamily(
        "gearshift_messages_sent", "Messages that the broker has confirmed.", labels=labels
    )
    resent = CounterMetricFamily(
        "gearshift_messages_resent", "Of these, sent again: may be there twice.", labels=labels
    )
    failed = CounterMetricFamily(
        "gearshift_send_failures", "Messages without receipt.", labels=(*labels, "error")
    )
    took = HistogramMetricFamily(
        "gearshift_send_seconds", "From submission to the broker's confirmation.", labels=labels
    )
    in_flight = GaugeMetricFamily(
        "gearshift_in_flight_messages", "Messages sent and not yet confirmed.", labels=labels
    )
    reconnects = CounterMetricFamily(
        "gearshift_producer_reconnects", "New connections after a lost one.", labels=labels
    )
    blocked = GaugeMetricFamily(
        "gearshift_producer_blocked", "1 while the broker takes nothing.", labels=labels
    )
    for one in stats:
        where = (one.channel,)
        stored.add_metric(where, one.stored)
        resent.add_metric(where, one.resent)
        for error, count in one.failed.items():
            failed.add_metric((*where, error), count)
        _add_timings(took, where, one.took)
        in_flight.add_metric(where, one.in_flight)
        reconnects.add_metric(where, one.reconnects)
        blocked.add_metric(where, float(one.blocked is not None))
    yield from (stored, resent, failed, took, in_flight, reconnects, blocked)


def _receiving(stats: Sequence[ReceiveStats]) -> Iterator[Metric]:
    labels = ("channel", "group")
    delivered = CounterMetricFamily(
        "gearshift_messages_delivered", "Deliveries handed out.", labels=labels
    )
    redelivered = CounterMetricFamily(
        "gearshift_messages_redelivered", "Of these, known to come again.", labels=labels
    )
    settled = CounterMetricFamily(
        "gearshift_messages_settled",
        "Deliveries by outcome: ack, retry, reject.",
        labels=(*labels, "outcome"),
    )
    stale = CounterMetricFamily(
        "gearshift_stale_settlements", "Settlements that came too late.", labels=labels
    )
    handled = HistogramMetricFamily(
        "gearshift_handler_seconds", "Time in a handler.", labels=(*labels, "outcome")
    )
    reconnects = CounterMetricFamily(
        "gearshift_consumer_reconnects", "New connections after a lost one.", labels=labels
    )
    consumers = GaugeMetricFamily(
        "gearshift_consumers", "Consumers of this process.", labels=labels
    )
    unsettled = GaugeMetricFamily(
        "gearshift_unsettled_messages", "Received by this process, not settled.", labels=labels
    )
    silent = GaugeMetricFamily(
        "gearshift_consumer_silent_seconds", "Since the broker was last heard.", labels=labels
    )
    stalled = GaugeMetricFamily(
        "gearshift_consumer_stalled_seconds", "Window full, nothing settled for.", labels=labels
    )
    for one in stats:
        where = (one.channel, one.group or "")
        delivered.add_metric(where, one.delivered)
        redelivered.add_metric(where, one.redelivered)
        for outcome, count in one.settled.items():
            settled.add_metric((*where, outcome), count)
        stale.add_metric(where, one.stale)
        for outcome, timings in one.handled.items():
            _add_timings(handled, (*where, outcome), timings)
        reconnects.add_metric(where, one.reconnects)
        consumers.add_metric(where, one.consumers)
        unsettled.add_metric(where, one.unsettled)
        silent.add_metric(where, one.silent_s)
        stalled.add_metric(where, one.stalled_s)
    yield from (delivered, redelivered, settled, stale, handled, reconnects)
    yield from (consumers, unsettled, silent, stalled)


def _add_timings(metric: HistogramMetricFamily, labels: Sequence[str], timings: Timings) -> None:
    buckets = list(zip(_BOUNDS, accumulate(timings.counts), strict=True))
    metric.add_metric(labels, buckets, timings.total_s)
