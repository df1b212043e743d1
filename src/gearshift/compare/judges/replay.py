"""Can what has been handled be read again?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Outcome, Seen
from gearshift.compare.ledger import Column, Event, Meta, TrialRecord

__all__ = ["JUDGE"]


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Compare what was read before and after the seek."""
    (trial,) = trials
    events = trial.events
    at = next((n for n, event in enumerate(events) if event.kind == "seek"), None)
    if at is None:
        return Seen(outcome=None, why="the reader never came to seek")
    first, second = set(measures.done(events[:at])), set(measures.done(events[at:]))
    if events[at].what != "earliest":
        return Seen(
            outcome="unsupported",
            why=events[at].what,
            numbers=(("read", "messages", len(first)), ("read again", "messages", len(second))),
        )
    is_same = _path(events[:at]) == _path(events[at:])
    return Seen(
        outcome="replayed" if second == first and is_same else "incomplete",
        numbers=(
            ("read", "messages", len(first)),
            ("read again", "messages", len(second)),
            ("same order in every partition", "", is_same),
        ),
        charts=(_chart(events, at),),
    )


def expect(column: Column, _meta: Meta) -> Expectation:
    """A seek works where it is declared, else it is refused."""
    if column.capabilities["seek"]:
        return Expectation(
            "replayed", "A consumer can go back and read everything again.", "seek=true"
        )
    return Expectation("unsupported", "What is settled is gone; a seek is refused.", "seek=false")


def _path(events: Sequence[Event]) -> dict[int | None, list[int]]:
    """The messages of each partition in the order in which they first came."""
    path: dict[int | None, list[int]] = {}
    for event in measures.first_deliveries(events):
        path.setdefault(event.partition, []).append(event.seq or 0)
    return path


def _chart(events: Sequence[Event], at: int) -> Chart:
    first_ms = next(event.at_ms for event in events if event.kind == "deliver")
    rows: list[tuple[Cell, ...]] = [
        (round(event.at_ms - first_ms, 1), event.offset, event.partition, 1 if number < at else 2)
        for number, event in enumerate(events)
        if event.kind == "deliver"
    ]
    return Chart.of("offsets", "Offsets read, before and after going back to the start", rows)


JUDGE = Judge(
    title="Replay",
    subject="Reading again what was handled",
    question="A bug is fixed: can everything that was handled be read again?",
    handler="Where there is no replay, store what you may need again yourself. Where there is, be "
    "idempotent: a replay repeats every effect.",
    outcomes={
        "unsupported": Outcome(
            mark="cannot",
            shown="gone once settled",
            sentence="The seek was refused: what is settled is gone.",
            does="cannot read again what was handled",
            again="cannot",
        ),
        "incomplete": Outcome(
            mark="loses",
            shown="INCOMPLETE: {read again} of {read}",
            sentence="Of {read} messages {read again} came again, or in another order.",
            does="lose messages in a replay",
            again="lose some",
        ),
        "replayed": Outcome(
            mark="keeps",
            shown="all {read} again",
            sentence="All {read} messages came again, each partition in the same order.",
            does="can read again what was handled",
            again="can",
        ),
    },
    see=see,
    expect=expect,
    needs=(Need("replay", "replay of what was handled", frozenset({"replayed"})),),
)
