"""Who absorbs what a slow consumer leaves?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Outcome, Seen
from gearshift.compare.ledger import Column, Meta, Sample, TrialRecord
from gearshift.compare.measures import Points

__all__ = ["JUDGE"]

_MIB = 1024 * 1024
_BROKER = ("ready_messages", "lag_messages")

#: The chart, and the share of the broker, are of one moment each so many milliseconds.
_EVERY_MS = 50.0


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Find where the backlog was, at moments as far apart as each other."""
    (trial,) = trials
    prefetch = float(trial.settings["prefetch"])
    refused = sum(event.kind == "refused" for event in trial.events)
    backlog = [(at_ms, float(waiting)) for at_ms, waiting in measures.backlog(trial.events)]
    # Of less than that the consumer may well hold the larger part, wherever the rest waits.
    if max((waiting for _, waiting in backlog), default=0) <= 2 * prefetch:
        return Seen(outcome=None, why="no backlog grew: the consumer was quick enough")
    held = _held(trial)
    share = _share(backlog, _broker(trial, backlog, held), prefetch)
    if share is None:
        return Seen(outcome=None, why="nobody told where the messages wait while they did")
    return Seen(
        outcome="producer" if refused else "broker" if share * 2 >= 1 else "consumer",
        numbers=(
            ("largest backlog", "messages", max(waiting for _, waiting in backlog)),
            ("at the broker", "%", round(share * 100)),
            ("held by the consumer", "messages", max((n for _, n in held), default=None)),
            ("prefetch", "messages", prefetch),
            ("sends refused", "sends", refused),
            ("longest confirm", "ms", _longest_confirm_ms(trial)),
            ("producer grew", "MiB", _growth_mib(trial.samples, "producer")),
            ("consumer grew", "MiB", _growth_mib(trial.samples, "worker")),
        ),
        charts=(_chart(trial, backlog, held),),
    )


def _share(backlog: Points, broker: Points, prefetch: float) -> float | None:
    """The part of the backlog that the broker had, over the time in which there was one."""
    if not broker:
        return None
    first, last = broker[0][0], broker[-1][0]
    times = sorted({*measures.grid(first, last, _EVERY_MS), *(at_ms for at_ms, _ in broker)})
    pairs = zip(measures.at(backlog, times), measures.at(broker, times), strict=True)
    counted = [(waiting, min(there, waiting)) for waiting, there in pairs if waiting > prefetch]
    whole = sum(waiting for waiting, _ in counted)
    return sum(there for _, there in counted) / whole if whole else None


def _held(trial: TrialRecord) -> Points:
    return [
        (sample.at_ms, sample.value)
        for sample in trial.samples
        if sample.name == "held_messages" and sample.who == "worker"
    ]


def _broker(trial: TrialRecord, backlog: Points, held: Points) -> Points:
    """What the broker said it had; of one that tells nothing, what nobody held."""
    told = [(one.at_ms, max(one.value, 0.0)) for one in trial.samples if one.name in _BROKER]
    times = [at_ms for at_ms, _ in held]
    waiting = measures.at(backlog, times)
    return told or [
        (at_ms, max(all_of_them - value, 0.0))
        for (at_ms, value), all_of_them in zip(held, waiting, strict=True)
    ]


def expect(column: Column, _meta: Meta) -> Expectation:
    """A durable broker keeps what is not taken; prefetch bounds what is."""
    prefetch = column.capabilities["prefetch"]
    return Expectation(
        "broker",
        "The backlog grows in the broker; the consumer holds "
        + ("at most its prefetch." if prefetch == "strict" else "about its prefetch."),
        f"prefetch={prefetch}",
    )


def _longest_confirm_ms(trial: TrialRecord) -> float | None:
    return max((e.ms_taken for e in trial.events if e.ms_taken is not None), default=None)


def _growth_mib(samples: Sequence[Sample], who: str) -> float | None:
    sizes = [sample.value for sample in samples if sample.name == "rss_bytes" and sample.who == who]
    return round((max(sizes) - sizes[0]) / _MIB, 1) if sizes else None


def _chart(trial: TrialRecord, backlog: Points, held: Points) -> Chart:
    """Everything on one scale, from the first confirmed message on."""
    start, end = backlog[0][0], backlog[-1][0]
    series = {
        "waiting in all": backlog,
        "at the broker": _broker(trial, backlog, held),
        "held by the consumer": held,
    }
    rows: list[tuple[Cell, ...]] = []
    for name, points in series.items():
        times = measures.grid(start, end, max(_EVERY_MS, (end - start) / 60))
        for at_ms, value, most in zip(
            times, measures.at(points, times), measures.at(backlog, times), strict=True
        ):
            rows.append((name, round(at_ms - start), round(min(value, most))))
    return Chart.of("backlog", "Where the messages wait", rows)


JUDGE = Judge(
    title="Slow consumer",
    subject="A producer that never waits",
    question="The producer is quicker than the consumer: who absorbs the pressure?",
    handler="Keep prefetch near what you can work on at once, watch backlog or lag, and give the "
    "producer a deadline: a broker's disk can fill up.",
    outcomes={
        "producer": Outcome(
            mark="loses",
            shown="held back: {sends refused:unit} refused",
            sentence="{sends refused} sends were refused when the backlog was {largest backlog}.",
            does="hold a quick producer back",
            again="hold it back",
        ),
        "consumer": Outcome(
            mark="keeps",
            shown="consumer holds up to {held by the consumer}",
            sentence="Up to {largest backlog:unit} waited, {at the broker:unit} of them at the "
            "broker; the consumer held the rest.",
            does="leave the backlog with the consumer",
            again="leave it with the consumer",
        ),
        "broker": Outcome(
            mark="keeps",
            shown="{at the broker:unit} of the backlog at the broker; "
            "slowest confirm {longest confirm:unit}",
            sentence="Up to {largest backlog:unit} waited, over the whole time {at the "
            "broker:unit} of them at the broker; the slowest send was confirmed after {longest "
            "confirm:unit}.",
            does="keep the backlog in the broker",
            again="keep it there",
        ),
    },
    see=see,
    expect=expect,
    needs=(
        Need("quick-producer", "a producer that never waits for consumers",
             frozenset({"broker", "consumer"})),
    ),
)  # fmt: skip
