"""The metrics of a bus: one table, which Prometheus and OpenTelemetry both show.

Labels are ``channel`` and ``group``, never a message's id or key. A group of ephemeral consumers,
``tail`` for one, has the empty label. What a broker does not tell is missing, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from gearshift.bus import Bus
from gearshift.driver import GroupStatus
from gearshift.stats import Timings
from gearshift.telemetry.depths import Depths

__all__ = ["METRICS", "Metric", "Reader", "Sample"]

Kind: TypeAlias = Literal["counter", "gauge", "durations"]


class Metric(NamedTuple):
    """A metric: the field that holds it, and its names for Prometheus and for OpenTelemetry.

    ``by`` is what the values of the field are counted by, besides ``labels``; those of ``always``
    are shown before there is one, so that a rate begins with the first.
    """

    field: str
    kind: Kind
    prometheus: str
    otel: str
    unit: str
    text: str
    by: str | None = None
    always: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    """A value of a metric, and those of its labels in their order, ``by`` the last."""

    labels: tuple[str, ...]
    value: float | Timings


def _rows(labels: Sequence[str], *rows: Metric) -> tuple[Metric, ...]:
    return tuple(row._replace(labels=(*labels, *([row.by] if row.by else []))) for row in rows)


_SENDING = _rows(
    ["channel"],
    Metric("stored", "counter", "gearshift_messages_sent", "messaging.client.sent.messages",
        "{message}", "Messages that the broker has confirmed."),
    Metric("resent", "counter", "gearshift_messages_resent", "gearshift.producer.resent",
        "{message}", "Of these, sent again: may be there twice."),
    Metric("failed", "counter", "gearshift_send_failures", "messaging.client.sent.messages",
        "{message}", "Messages without receipt.", by="error"),
    Metric("took", "durations", "gearshift_send_seconds", "messaging.client.operation.duration",
        "s", "From submission to the broker's confirmation."),
    Metric("in_flight", "gauge", "gearshift_in_flight_messages", "gearshift.producer.in_flight",
        "{message}", "Messages sent and not yet confirmed."),
    Metric("reconnects", "counter", "gearshift_producer_reconnects",
        "gearshift.producer.reconnects", "{connection}", "New connections after a lost one."),
    Metric("silent_s", "gauge", "gearshift_producer_silent_seconds", "gearshift.producer.silence",
        "s", "Since the broker was last heard."),
    Metric("blocked", "gauge", "gearshift_producer_blocked", "gearshift.producer.blocked",
        "1", "1 while the broker takes nothing."),
)  # fmt: skip
_RECEIVING = _rows(
    ["channel", "group"],
    Metric("delivered", "counter", "gearshift_messages_delivered",
        "messaging.client.consumed.messages", "{message}", "Deliveries handed out."),
    Metric("redelivered", "counter", "gearshift_messages_redelivered",
        "gearshift.consumer.redelivered", "{message}", "Of these, known to come again."),
    Metric("settled", "counter", "gearshift_messages_settled", "gearshift.consumer.settled",
        "{message}", "By outcome: ack, retry, reject.", by="outcome",
        always=("ack", "retry", "reject")),
    Metric("stale", "counter", "gearshift_stale_settlements", "gearshift.consumer.stale",
        "{message}", "Settlements that came too late."),
    Metric("skipped", "counter", "gearshift_messages_skipped", "gearshift.consumer.skipped",
        "{message}", "Deleted by retention before read."),
    Metric("handled", "durations", "gearshift_handler_seconds", "messaging.process.duration",
        "s", "Time in a handler.", by="outcome"),
    Metric("in_hand", "gauge", "gearshift_in_hand_messages", "gearshift.consumer.in_hand",
        "{message}", "Handed out by this process and not settled: with handlers, say."),
    Metric("handler_limit", "gauge", "gearshift_handler_limit", "gearshift.consumer.handler_limit",
        "{message}", "Messages that handlers of this process take at once."),
    Metric("reconnects", "counter", "gearshift_consumer_reconnects",
        "gearshift.consumer.reconnects", "{connection}", "New connections after a lost one."),
    Metric("consumers", "gauge", "gearshift_consumers", "gearshift.consumer.count",
        "{consumer}", "Consumers of this process."),
    Metric("unsettled", "gauge", "gearshift_unsettled_messages", "gearshift.consumer.unsettled",
        "{message}", "Received by this process, not settled."),
    Metric("silent_s", "gauge", "gearshift_consumer_silent_seconds", "gearshift.consumer.silence",
        "s", "Since the broker was last heard."),
    Metric("stalled_s", "gauge", "gearshift_consumer_stalled_seconds",
        "gearshift.consumer.stall", "s", "Window full, or handlers, and nothing settled."),
    Metric("longest_s", "gauge", "gearshift_longest_in_hand_seconds",
        "gearshift.consumer.longest_in_hand", "s", "Age of the oldest unsettled delivery."),
    Metric("unstored", "gauge", "gearshift_unstored_messages", "gearshift.consumer.unstored",
        "{message}", "Their retry or dead letter is refused."),
)  # fmt: skip
_BROKER = (
    Metric("is_up", "gauge", "gearshift_broker_up", "gearshift.broker.up",
        "1", "1 if the broker told all depths just now."),
    *_rows(
        ["channel"],
        Metric("age_s", "gauge", "gearshift_depth_age_seconds", "gearshift.depth.age",
            "s", "Since the broker told this."),
        Metric("dead_letters", "gauge", "gearshift_dead_letters", "gearshift.dead_letters",
            "{message}", "Dead letters that wait in this channel."),
    ),
)  # fmt: skip
_GROUP = _rows(
    ["channel", "group"],
    Metric("ready", "gauge", "gearshift_ready_messages", "gearshift.group.ready",
        "{message}", "Messages that wait for a group of a queue."),
    Metric("in_flight", "gauge", "gearshift_unsettled_messages_at_broker",
        "gearshift.group.unsettled", "{message}", "Handed out by the broker, unsettled."),
    Metric("lag", "gauge", "gearshift_lag_messages", "gearshift.group.lag",
        "{message}", "Messages behind the positions of a group of a stream."),
    Metric("oldest_age_s", "gauge", "gearshift_oldest_message_age_seconds",
        "gearshift.group.oldest_age", "s", "Age of the oldest of these."),
    Metric("consumers", "gauge", "gearshift_group_consumers", "gearshift.group.consumers",
        "{consumer}", "Consumers of a group, of all processes."),
)  # fmt: skip

#: Every metric, in the order in which they are shown.
METRICS = (*_SENDING, *_RECEIVING, *_BROKER, *_GROUP)


class Reader:
    """Reads all metrics of ``bus``. Any thread.

    With ``depth_of`` the broker is asked at each reading what waits for the groups of these
    channels, and how many dead letters theirs are; that takes up to ``timeout_s`` seconds in all.
    """

    def __init__(self, bus: Bus, depth_of: Sequence[str], timeout_s: float) -> None:
        self._bus = bus
        self._depths = Depths(bus, depth_of, timeout_s) if depth_of else None

    def read(self) -> Iterator[tuple[Metric, list[Sample]]]:
        """Yield each metric with its values now; those of the broker only if it is asked."""
        stats = self._bus.stats()
        yield from _of_each(_SENDING, [((one.channel,), one) for one in stats.sending])
        yield from _of_each(
            _RECEIVING, [((one.channel, one.group or ""), one) for one in stats.receiving]
        )
        if self._depths is not None:
            yield from self._of_broker(self._depths)

    def _of_broker(self, depths: Depths) -> Iterator[tuple[Metric, list[Sample]]]:
        told = depths.ask()
        is_up, age, dead_letters = _BROKER
        yield is_up, [Sample((), float(told.error is None))]
        yield age, [Sample((name,), age_s) for name, age_s in told.ages_s.items()]
        yield (
            dead_letters,
            [Sample((name,), n) for name, n in told.dead_letters.items() if n is not None],
        )
        yield from _of_each(
            _GROUP,
            [((name, one.group), one) for name, states in told.groups.items() for one in states],
        )


def _of_each(
    metrics: Sequence[Metric], rows: Sequence[tuple[tuple[str, ...], Any]]
) -> Iterator[tuple[Metric, list[Sample]]]:
    """Each metric with what the rows, each of which has labels, have in its field."""
    for metric in metrics:
        samples: list[Sample] = []
        for labels, row in rows:
            value = getattr(row, metric.field)
            parts: Mapping[Any, Any] = {None: value}
            if metric.by:
                parts = dict.fromkeys(metric.always, 0) | value
            for part, its in parts.items():
                if its is not None or not isinstance(row, GroupStatus):
                    samples.append(Sample((*labels, part) if metric.by else labels, _number(its)))
        yield metric, samples


def _number(value: Any) -> float | Timings:
    """Of a text, which says why something is so, only whether there is one."""
    return value if isinstance(value, int | float | Timings) else float(bool(value))
