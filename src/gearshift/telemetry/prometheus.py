"""The metrics of a bus for Prometheus. Importing this needs ``gearshift[prometheus]``.

Labels are ``channel`` and ``group``, never a message's id or key. A group of ephemeral consumers,
``tail`` for one, has the empty label.
"""

from __future__ import annotations

import logging
import threading
import time
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
from gearshift.driver import GroupStatus
from gearshift.errors import ConnectionFailed, GearshiftError
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
    channels. A scrape waits for all answers together for up to ``timeout_s`` seconds, then gives
    the last ones: ``gearshift_depth_age_seconds`` says how old they are, ``gearshift_broker_up``
    whether all are new. What a broker does not tell is left out.
    """

    def __init__(self, bus: Bus, *, depth_of: Sequence[str] = (), timeout_s: float = 2.0) -> None:
        self._bus = bus
        self._depths = _Depths(bus, depth_of, timeout_s)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        stats = self._bus.stats()
        yield from _sending(stats.sending)
        yield from _receiving(stats.receiving)
        yield from self._depths.collect()


class _Depths:
    """What waits for the groups of some channels. Any thread.

    The channels are asked in turn on a thread of its own, one round at a time, so that a broker
    which does not answer holds up no scrape for long, and is asked once however many there are.
    """

    def __init__(self, bus: Bus, channels: Sequence[str], timeout_s: float) -> None:
        self._bus = bus
        self._channels = channels
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._round: threading.Thread | None = None
        self._answers: dict[str, tuple[float, Sequence[GroupStatus]]] = {}
        self._is_complete = False  # the last round that has ended

    def collect(self) -> Iterator[Metric]:
        """Ask, and give the last answers."""
        if not self._channels:
            return
        is_up = self._ask()
        metrics = {
            field: GaugeMetricFamily(name, text, labels=("channel", "group"))
            for field, (name, text) in _DEPTH.items()
        }
        age = GaugeMetricFamily(
            "gearshift_depth_age_seconds", "Since the broker told this.", labels=("channel",)
        )
        for channel, (told_at, statuses) in list(self._answers.items()):
            age.add_metric((channel,), time.monotonic() - told_at)
            for status in statuses:
                for field, metric in metrics.items():
                    if (value := getattr(status, field)) is not None:
                        metric.add_metric((channel, status.group), value)
        yield GaugeMetricFamily(
            "gearshift_broker_up", "1 if the broker told all depths just now.", float(is_up)
        )
        yield age
        yield from metrics.values()

    def _ask(self) -> bool:
        """Wait for a round, which may have begun before; True if it has told everything."""
        with self._lock:
            if self._round is None or not self._round.is_alive():
                self._is_complete = False
                self._round = threading.Thread(
                    target=self._ask_all, name="gearshift-depths", daemon=True
                )
                self._round.start()
            asking = self._round
        asking.join(self._timeout_s)
        return self._is_complete

    def _ask_all(self) -> None:
        complete = True
        for channel in self._channels:
            try:
                statuses = self._bus.groups(channel, timeout_s=self._timeout_s)
                self._answers[channel] = (time.monotonic(), statuses)
            except ConnectionFailed as error:
                log.debug("no depths: %s", error)
                return  # the others are on the same broker
            except GearshiftError as error:
                log.debug("no depth of %r: %s", channel, error)
                self._answers.pop(channel, None)
                complete = False
        self._is_complete = complete


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
    silent = GaugeMetricFamily(
        "gearshift_producer_silent_seconds", "Since the broker was last heard.", labels=labels
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
        silent.add_metric(where, one.silent_s)
        blocked.add_metric(where, float(one.blocked is not None))
    yield from (stored, resent, failed, took, in_flight, reconnects, silent, blocked)


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
    skipped = CounterMetricFamily(
        "gearshift_messages_skipped", "Deleted by retention before they were read.", labels=labels
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
    unstored = GaugeMetricFamily(
        "gearshift_unstored_messages",
        "Kept by this process: their retry or dead letter cannot be stored.",
        labels=labels,
    )
    for one in stats:
        where = (one.channel, one.group or "")
        delivered.add_metric(where, one.delivered)
        redelivered.add_metric(where, one.redelivered)
        for outcome, count in one.settled.items():
            settled.add_metric((*where, outcome), count)
        stale.add_metric(where, one.stale)
        skipped.add_metric(where, one.skipped)
        for outcome, timings in one.handled.items():
            _add_timings(handled, (*where, outcome), timings)
        reconnects.add_metric(where, one.reconnects)
        consumers.add_metric(where, one.consumers)
        unsettled.add_metric(where, one.unsettled)
        silent.add_metric(where, one.silent_s)
        stalled.add_metric(where, one.stalled_s)
        unstored.add_metric(where, one.unstored)
    yield from (delivered, redelivered, settled, stale, skipped, handled, reconnects)
    yield from (consumers, unsettled, silent, stalled, unstored)


def _add_timings(metric: HistogramMetricFamily, labels: Sequence[str], timings: Timings) -> None:
    buckets = list(zip(_BOUNDS, accumulate(timings.counts), strict=True))
    metric.add_metric(labels, buckets, timings.total_s)
