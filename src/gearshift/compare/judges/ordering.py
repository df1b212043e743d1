"""In which order are messages handled when several workers share them?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Outcome, Seen
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
        charts=(_chart(deliveries, {*within}, {*together}),),
    )


def expect(column: Column, meta: Meta) -> Expectation:
    """Order per key needs a key, and a backend that declares it."""
    declared = column.capabilities["order"]
    because = f"order={declared}"
    if not meta.keys:
        return Expectation(
            "none",
            "Without keys nothing says which messages belong together.",
            f"{because}, sent without keys",
        )
    if declared == "key":
        return Expectation(
            "key", "Messages of one key are handled as sent, with any number of workers.", because
        )
    return Expectation(
        "none", "With several workers messages overtake each other, those of one key too.", because
    )


def _chart(deliveries: Sequence[Event], overtaken: set[int], beside: set[int]) -> Chart:
    rows: list[tuple[Cell, ...]] = []
    for place, event in enumerate(deliveries, 1):
        seq = event.seq or 0
        state = "overtaken" if seq in overtaken else "beside" if seq in beside else "in order"
        rows.append((event.key, seq + 1, place, event.who, state))
    return Chart.of("order", "Each key's messages, in the order in which they were handled", rows)


JUDGE = Judge(
    title="Ordering",
    subject="A key's order, three workers",
    question="Several workers share the messages: are they still handled in the order sent?",
    handler="Where order is lost, carry a version in the message and ignore what is older, or use "
    "one worker. Where it holds per key, give everything that belongs together one key.",
    outcomes={
        "none": Outcome(
            mark="loses",
            shown="{key broken} of {messages} overtaken",
            sentence="{key broken} of {messages} messages overtook one of their own key, "
            "or were handled at the same time.",
            does="lose a key's order with three workers",
            again="lose it",
        ),
        "key": Outcome(
            mark="keeps",
            shown="in order per key",
            sentence="No message overtook one of its own key; {out of order} of {messages} "
            "overtook one of another.",
            does="keep a key's order with three workers",
            again="keep it",
        ),
        "total": Outcome(
            mark="keeps",
            shown="in order",
            sentence="All {messages} messages were handled as sent.",
            does="keep a key's order with three workers",
            again="keep it",
        ),
    },
    see=see,
    expect=expect,
    needs=(Need("order", "a key's order with several workers", frozenset({"key", "total"})),),
    elsewhere={
        "queue": "The queues of RabbitMQ and Kafka lose it: what needs order there is a stream, "
        "or has one worker."
    },
)
