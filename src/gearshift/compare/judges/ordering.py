"""In which order are messages handled when several workers share them?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Seen
from gearshift.compare.ledger import Column, Event, Meta, TrialRecord

__all__ = ["JUDGE"]


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Compare the order of sending with the order in which handling began."""
    (trial,) = trials
    deliveries = measures.first_deliveries(trial.events)
    if len(deliveries) < 2:
        return Seen(outcome=None, why="fewer than two messages were delivered")
    everywhere = measures.inversions([event.seq or 0 for event in deliveries])
    within = measures.key_inversions(deliveries)
    together = measures.overlaps(trial.events)
    broken = len({*within, *together})
    return Seen(
        outcome="none" if broken else "key" if everywhere else "total",
        numbers=(
            ("messages", "", len(deliveries)),
            ("out of order", "messages", len(everywhere)),
            ("out of order within their key", "messages", len(within)),
            ("begun while an earlier one of their key was handled", "messages", len(together)),
            ("key broken", "messages", broken),
        ),
        charts=(_chart(deliveries, {*within}),),
    )


def expect(column: Column, meta: Meta) -> Expectation:
    """Order per key needs a key, and a backend that declares it."""
    declared = column.capabilities["order"]
    because = f"order={declared}"
    if not meta.keys:
        return Expectation(
            outcome="none",
            sentence="Without keys nothing says which messages belong together.",
            because=f"{because}, sent without keys",
        )
    if declared == "key":
        return Expectation(
            outcome="key",
            sentence="Messages of one key are handled as sent, with any number of workers.",
            because=because,
        )
    return Expectation(
        outcome="none",
        sentence="With several workers messages overtake each other, those of one key too.",
        because=because,
    )


def _chart(deliveries: Sequence[Event], inverted: set[int]) -> Chart:
    rows: list[tuple[Cell, ...]] = [
        (event.seq, place, event.key, event.who, event.seq in inverted)
        for place, event in enumerate(deliveries)
    ]
    return Chart.of("order", "Place when sent against place when handled", rows)


JUDGE = Judge(
    title="Ordering",
    question="Several workers share the messages: are they still handled in the order sent?",
    handler="Where order is lost, carry a version in the message and ignore what is older, or use "
    "one worker. Where it holds per key, give everything that belongs together one key.",
    ranks=("none", "key", "total"),
    shown={
        "none": "overtaken: {key broken} of {messages}",
        "key": "in order per key",
        "total": "in order",
    },
    sentence={
        "none": "{key broken} of {messages} messages overtook one of their own key, "
        "or were handled at the same time.",
        "key": "No message overtook one of its own key; {out of order} of {messages} overtook one "
        "of another.",
        "total": "All {messages} messages were handled as sent.",
    },
    see=see,
    expect=expect,
    needs=(Need("order per key with several workers", frozenset({"key", "total"})),),
)
