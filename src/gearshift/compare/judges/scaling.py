"""Do more workers than partitions help?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.columns import PARTITIONS
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Outcome, Seen
from gearshift.compare.ledger import Column, Meta, TrialRecord

__all__ = ["JUDGE"]


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Count the busy workers of each size of the group."""
    by_size = {int(trial.variant.partition("=")[2]): trial for trial in trials}
    largest = max(by_size)
    if largest <= PARTITIONS or any(not measures.done(trial.events) for trial in trials):
        return Seen(outcome=None, why="nothing was handled with more workers than partitions")
    busy = {size: len(measures.by_worker(trial.events)) for size, trial in by_size.items()}
    speed = {size: measures.throughput_per_s(trial.events) for size, trial in by_size.items()}
    return Seen(
        outcome="any" if busy[largest] > PARTITIONS else "partitions",
        numbers=(
            ("workers", "", largest),
            ("busy workers", "", busy[largest]),
            ("partitions reached", "", _partitions(by_size[largest])),
            *((f"with {size}", "messages/s", speed[size]) for size in sorted(by_size)),
        ),
        charts=(_chart(busy, speed, trials[0].repetition),),
    )


def _partitions(trial: TrialRecord) -> int | None:
    reached = {e.partition for e in trial.events if e.kind == "deliver"}
    return None if None in reached else len(reached)


def expect(column: Column, _meta: Meta) -> Expectation:
    """A log gives a partition to one member of a group; a queue gives messages to whoever asks."""
    members = column.capabilities["members"]
    if members == "any":
        return Expectation(
            "any", "Every worker gets messages, however many there are.", "members=any"
        )
    return Expectation(
        "partitions",
        f"At most {PARTITIONS} workers are busy, one per partition.",
        f"members=partitions, partitions={PARTITIONS}",
    )


def _chart(busy: dict[int, int], speed: dict[int, float | None], repetition: int) -> Chart:
    least = min(busy)
    unit = (speed[least] or 0.0) / least
    rows: list[tuple[Cell, ...]] = [
        (size, speed[size], round(unit * size, 2), busy[size], repetition) for size in sorted(busy)
    ]
    return Chart.of("scaling", "Throughput against workers", rows)


JUDGE = Judge(
    title="Scaling workers past partitions",
    subject="More workers than partitions",
    question=f"Of 1, 2, 4 and 8 workers, how many are busy? A stream has {PARTITIONS} partitions.",
    handler="On a stream choose as many partitions as the most workers that you will ever need; "
    "further workers stand idle. A hot key keeps only the worker of its partition busy.",
    outcomes={
        "partitions": Outcome(
            mark="cannot",
            shown="{busy workers} of {workers} busy; {with 1} to {with 8:unit}",
            sentence="Of {workers} workers {busy workers} had work; the keys reached "
            f"{{partitions reached}} of {PARTITIONS} partitions. "
            "One worker did {with 1:unit}, {workers} did {with 8:unit}.",
            does="stop at a worker per partition",
            again="stop at one per partition",
        ),
        "any": Outcome(
            mark="keeps",
            shown="{busy workers} of {workers} busy; {with 1} to {with 8:unit}",
            sentence="Of {workers} workers {busy workers} had work. "
            "One worker did {with 1:unit}, {workers} did {with 8:unit}.",
            does="keep more workers than partitions busy",
            again="keep them busy",
        ),
    },
    see=see,
    expect=expect,
    needs=(Need("more-workers", "more workers at any time", frozenset({"any"})),),
)
