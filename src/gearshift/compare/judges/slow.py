"""Who absorbs what a slow consumer leaves?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation, Field
from gearshift.compare.judges.judge import Judge, Need, Seen
from gearshift.compare.ledger import Column, Meta, Sample, Trial

__all__ = ["JUDGE"]

_MIB = 1024 * 1024
_BROKER = ("ready_messages", "lag_messages")


def see(trials: Sequence[Trial]) -> Seen:
    """Find where the backlog was when it was largest."""
    (trial,) = trials
    refused = sum(event.kind == "refused" for event in trial.events)
    largest = max((waiting for _, waiting in measures.backlog(trial.events)), default=0)
    at_broker = max(
        (value for name in _BROKER if (value := measures.peak(trial.samples, name)) is not None),
        default=None,
    )
    held = measures.peak(trial.samples, "held_messages", "worker")
    if at_broker is None and held is not None:
        at_broker = largest - held  # the broker does not tell; what nobody holds is there
    if at_broker is None:
        return Seen(outcome=None, why="nobody tells where the messages wait")
    if largest <= trial.settings["prefetch"]:  # type: ignore[operator]
        return Seen(outcome=None, why="no backlog grew: the consumer was quick enough")
    return Seen(
        outcome="producer" if refused else "broker" if at_broker * 2 >= largest else "consumer",
        numbers=(
            ("largest backlog", "messages", largest),
            ("of it at the broker", "messages", at_broker),
            ("held by the consumer", "messages", held),
            ("prefetch", "messages", float(trial.settings["prefetch"])),
            ("sends refused", "messages", refused),
            ("longest confirm", "ms", _longest_confirm_ms(trial)),
            ("producer grew", "MiB", _growth_mib(trial.samples, "producer")),
            ("consumer grew", "MiB", _growth_mib(trial.samples, "worker")),
        ),
        charts=(_chart(trial),),
    )


def expect(column: Column, _meta: Meta) -> Expectation:
    """A durable broker keeps what is not taken; prefetch bounds what is."""
    prefetch = column.capabilities["prefetch"]
    return Expectation(
        outcome="broker",
        sentence="The backlog grows in the broker; the consumer holds "
        + ("at most its prefetch." if prefetch == "strict" else "about its prefetch."),
        because=f"prefetch={prefetch}",
    )


def _longest_confirm_ms(trial: Trial) -> float | None:
    return max((e.ms_taken for e in trial.events if e.ms_taken is not None), default=None)


def _growth_mib(samples: Sequence[Sample], who: str) -> float | None:
    sizes = [sample.value for sample in samples if sample.name == "rss_bytes" and sample.who == who]
    return round((max(sizes) - sizes[0]) / _MIB, 1) if sizes else None


def _chart(trial: Trial) -> Chart:
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
    return Chart(
        kind="series",
        title="Backlog and memory while the consumer lags behind",
        fields=(Field("name"), Field("unit"), Field("at_ms", "ms"), Field("value")),
        rows=tuple(rows),
    )


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
