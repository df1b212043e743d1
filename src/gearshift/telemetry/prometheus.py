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
from typing import Any

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
_COUNTER, _GAUGE, _TIMES = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

# Each row: a field of the stats, and the kind, name and help of the metric that shows it.
_SENDING = (
    ("stored", _COUNTER, "gearshift_messages_sent", "Messages that the broker has confirmed."),
    ("resent", _COUNTER, "gearshift_messages_resent", "Of these, sent again: may be there twice."),
    ("failed", _COUNTER, "gearshift_send_failures", "Messages without receipt."),
    ("took", _TIMES, "gearshift_send_seconds", "From submission to the broker's confirmation."),
    ("in_flight", _GAUGE, "gearshift_in_flight_messages", "Messages sent and not yet confirmed."),
    ("reconnects", _COUNTER, "gearshift_producer_reconnects", "New connections after a lost one."),
    ("silent_s", _GAUGE, "gearshift_producer_silent_seconds", "Since the broker was last heard."),
    ("blocked", _GAUGE, "gearshift_producer_blocked", "1 while the broker takes nothing."),
)
_RECEIVING = (
    ("delivered", _COUNTER, "gearshift_messages_delivered", "Deliveries handed out."),
    ("redelivered", _COUNTER, "gearshift_messages_redelivered", "Of these, known to come again."),
    ("settled", _COUNTER, "gearshift_messages_settled", "By outcome: ack, retry, reject."),
    ("stale", _COUNTER, "gearshift_stale_settlements", "Settlements that came too late."),
    ("skipped", _COUNTER, "gearshift_messages_skipped", "Deleted by retention before read."),
    ("handled", _TIMES, "gearshift_handler_seconds", "Time in a handler."),
    ("reconnects", _COUNTER, "gearshift_consumer_reconnects", "New connections after a lost one."),
    ("consumers", _GAUGE, "gearshift_consumers", "Consumers of this process."),
    ("unsettled", _GAUGE, "gearshift_unsettled_messages", "Received by this process, not settled."),
    ("silent_s", _GAUGE, "gearshift_consumer_silent_seconds", "Since the broker was last heard."),
    ("stalled_s", _GAUGE, "gearshift_consumer_stalled_seconds", "Window full and nothing settled."),
    ("unstored", _GAUGE, "gearshift_unstored_messages", "Their retry or dead letter is refused."),
)

#: Fields that count by something besides channel and group, and the label of that.
_BY = {"failed": "error", "settled": "outcome", "handled": "outcome"}

#: Field of GroupStatus → name and help of its metric.
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
        """Return nothing: registering must not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        stats = self._bus.stats()
        yield from _families(_SENDING, stats.sending, ("channel",))
        yield from _families(_RECEIVING, stats.receiving, ("channel", "group"))
        yield from self._depths.collect()


class _Depths:
    """Asks the broker what waits for the groups of some channels. Any thread.

    It asks for one channel after the other, on a thread of its own, in one round at a time: so a
    broker that does not answer delays no scrape for long, and is asked once however many there are.
    ``_lock`` guards ``_round``.
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
        """Ask, and yield the last answers."""
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
        """Wait for a round, which may have begun before; True if all of it was answered."""
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


def _families(
    rows: Sequence[tuple[str, Any, str, str]],
    stats: Sequence[SendStats | ReceiveStats],
    labels: Sequence[str],
) -> Iterator[Metric]:
    for field, kind, name, text in rows:
        by = [_BY[field]] if field in _BY else []
        metric = kind(name, text, labels=(*labels, *by))
        for one in stats:
            where = [getattr(one, label) or "" for label in labels]
            value = getattr(one, field)
            if by:
                for part, its in value.items():
                    _add(metric, [*where, part], its)
            else:
                _add(metric, where, value)
        yield metric


def _add(metric: Any, labels: Sequence[str], value: float | str | Timings | None) -> None:
    if isinstance(value, Timings):
        buckets = list(zip(_BOUNDS, accumulate(value.counts), strict=True))
        metric.add_metric(labels, buckets, value.total_s)
    else:  # of a text, which says why something is so, only whether there is one
        metric.add_metric(labels, value if isinstance(value, int | float) else bool(value))
