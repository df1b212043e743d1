"""Who absorbs what a slow consumer leaves?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Seen
from gearshift.compare.ledger import Column, Meta, Sample, TrialRecord

__all__ = ["JUDGE"]

_MIB = 1024 * 1024
_BROKER = ("ready_messages", "lag_messages")


class _Moment(NamedTuple):
    """The messages that wait when the broker has answered, and those of them that it has."""

    waiting: float
    at_broker: float


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Find where the backlog was whenever somebody looked."""
    (trial,) = trials
    prefetch = float(trial.settings["prefetch"])
    refused = sum(event.kind == "refused" for event in trial.events)
    backlog = measures.backlog(trial.events)
    if max((waiting for _, waiting in backlog), default=0) <= prefetch:
        return Seen(outcome=None, why="no backlog grew: the consumer was quick enough")
    moments = [moment for moment in _moments(trial, backlog) if moment.waiting > prefetch]
    if not moments:
        return Seen(outcome=None, why="nobody told where the messages wait while they did")
    # Over all moments: one alone may be of a broker that took its time to answer.
    share = sum(one.at_broker for one in moments) / sum(one.waiting for one in moments)
    held = measures.peak(trial.samples, "held_messages", "worker")
    fullest = max(moments, key=lambda one: one.at_broker)
    return Seen(
        outcome="producer" if refused else "broker" if share * 2 >= 1 else "consumer",
        numbers=(
            ("largest backlog", "messages", fullest.waiting),
            ("of it at the broker", "messages", fullest.at_broker),
            ("held by the consumer", "messages", held),
            ("prefetch", "messages", prefetch),
            ("sends refused", "messages", refused),
            ("longest confirm", "ms", _longest_confirm_ms(trial)),
            ("producer grew", "MiB", _growth_mib(trial.samples, "producer")),
            ("consumer grew", "MiB", _growth_mib(trial.samples, "worker")),
        ),
        charts=(_chart(trial),),
    )


def _moments(trial: TrialRecord, backlog: Sequence[tuple[float, int]]) -> Iterator[_Moment]:
    """Each answer of the broker; of one that tells nothing, each look into the consumer."""
    times = [at_ms for at_ms, _ in backlog]
    tells = any(sample.name in _BROKER for sample in trial.samples)
    for sample in trial.samples:
        number = bisect_right(times, sample.at_ms) - 1
        waiting = float(backlog[number][1] if number >= 0 else 0)
        if sample.name in _BROKER:
            yield _Moment(waiting, min(max(sample.value, 0.0), waiting))
        elif not tells and sample.name == "held_messages" and sample.who == "worker":
            yield _Moment(waiting, max(waiting - sample.value, 0.0))  # what nobody holds is there


def expect(column: Column, _meta: Meta) -> Expectation:
    """A durable broker keeps what is not taken; prefetch bounds what is."""
    prefetch = column.capabilities["prefetch"]
    return Expectation(
        outcome="broker",
        sentence="The backlog grows in the broker; the consumer holds "
        + ("at most its prefetch." if prefetch == "strict" else "about its prefetch."),
        because=f"prefetch={prefetch}",
    )


def _longest_confirm_ms(trial: TrialRecord) -> float | None:
    return max((e.ms_taken for e in trial.events if e.ms_taken is not None), default=None)


def _growth_mib(samples: Sequence[Sample], who: str) -> float | None:
    sizes = [sample.value for sample in samples if sample.name == "rss_bytes" and sample.who == who]
    return round((max(sizes) - sizes[0]) / _MIB, 1) if sizes else None


def _chart(trial: TrialRecord) -> Chart:
    rows: list[tuple[Cell, ...]] = [
        ("backlog", "messages", at_ms, waiting) for at_ms, waiting in measures.backlog(trial.events)
    ]
    for sample in trial.samples:
        if sample.name == "rss_bytes":
            name = f"memory of the {'producer' if sample.who == 'producer' else 'consumer'}"
            rows.append((name, "MiB", sample.at_ms, round(sample.value / _MIB, 2)))
        else:
            name = sample.name.removesuffix("_messages").replace("_", " ")
            rows.append((name, "messages", sample.at_ms, sample.value))
    return Chart.of("series", "Backlog and memory while the consumer lags behind", rows)


JUDGE = Judge(
    title="Slow consumer",
    question="The producer is quicker than the consumer: who absorbs the pressure?",
    handler="Keep prefetch near what you can work on at once, watch backlog or lag, and give the "
    "producer a deadline: a broker's disk has an end too.",
    ranks=("producer", "consumer", "broker"),
    shown={
        "producer": "producer is held back",
        "consumer": "consumer holds {largest backlog}",
        "broker": "broker holds {of it at the broker}",
    },
    sentence={
        "producer": "{sends refused} sends were refused when the backlog was {largest backlog}.",
        "consumer": "Of {largest backlog} waiting messages only {of it at the broker} were at the "
        "broker; the consumer held the rest.",
        "broker": "Of {largest backlog} waiting messages {of it at the broker} were at the broker; "
        "the producer noticed nothing.",
    },
    see=see,
    expect=expect,
    needs=(Need("a producer that never waits for consumers", frozenset({"broker", "consumer"})),),
)
