"""Who gets a copy, and what does a group get that comes late?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Outcome, Seen
from gearshift.compare.ledger import Column, Event, Meta, TrialRecord

__all__ = ["JUDGE"]


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Count each group's copies of what was sent before and after the last group came."""
    (trial,) = trials
    events = trial.events
    ready = [event for event in events if event.kind == "ready"]
    sent = measures.confirmed(events)
    if len(ready) < 2 or not sent:
        return Seen(outcome=None, why="no group came late")
    late, early = ready[-1], [event.group for event in ready[:-1]]
    before = {
        event.seq or 0
        for event in events
        if event.kind == "receipt" and event.at_ms < _arrival(events, late)
    }
    copies = {event.group: _copies(events, event.group) for event in ready}
    history, later = copies[late.group] & before, copies[late.group] - before
    complete = all(copies[group] >= sent for group in early) and later >= sent - before
    return Seen(
        outcome=_outcome(complete, history, before),
        numbers=(
            ("sent", "messages", len(sent)),
            ("sent before the last group came", "messages", len(before)),
            ("fewest copies of an early group", "messages", min(len(copies[g]) for g in early)),
            ("history for the late group", "messages", len(history)),
            ("new messages for the late group", "messages", len(later)),
        ),
        charts=(_chart(copies, before, sent),),
    )


def expect(column: Column, _meta: Meta) -> Expectation:
    """A log keeps its history for whoever comes; a queue exists from its group's arrival on."""
    if not column.capabilities["fan_out"]:
        return Expectation("not_all", "Only one group gets a message.", "fan_out=false")
    if column.capabilities["replay"]:
        return Expectation(
            "history",
            "Every group gets everything; one that is added later also history.",
            "fan_out=true, replay=true",
        )
    return Expectation(
        "from_now",
        "Every group gets everything that is sent once it exists, and nothing older.",
        "fan_out=true, replay=false",
    )


def _outcome(complete: bool, history: set[int], before: set[int]) -> str:
    if not complete:
        return "not_all"
    if not history:
        return "from_now"
    return "history" if history == before else "partial"


def _arrival(events: Sequence[Event], late: Event) -> float:
    return next(e.at_ms for e in events if e.kind == "start" and e.who == late.who)


def _copies(events: Sequence[Event], group: str) -> set[int]:
    return set(measures.done(measures.of_group(events, group)))


def _chart(copies: dict[str, set[int]], before: set[int], sent: set[int]) -> Chart:
    rows: list[tuple[Cell, ...]] = []
    for group, got in copies.items():
        rows.append((group, "before", len(before), len(got & before)))
        rows.append((group, "after", len(sent - before), len(got - before)))
    return Chart.of(
        "copies", "Copies per group, of what was sent before and after the last one came", rows
    )


JUDGE = Judge(
    title="Fan-out and late joiner",
    subject="History, for a group that is added later",
    question="Does every group get every message, and does one that is added later get history?",
    handler="Where a late group gets only what is new, declare every group before the first "
    "message. Where it gets history, expect all of it at once.",
    outcomes={
        "not_all": Outcome(
            mark="loses",
            shown="NOT ALL: {fewest copies of an early group} of {sent}",
            sentence="A group missed messages: {fewest copies of an early group} of {sent}.",
            does="leave messages out for a group",
            again="leave some out",
        ),
        "partial": Outcome(
            mark="loses",
            shown="part of it: {history for the late group} of {sent before the last group came}",
            sentence="A late group got {history for the late group} of "
            "{sent before the last group came} older messages.",
            does="give a late group part of its history",
            again="give it a part",
        ),
        "from_now": Outcome(
            mark="cannot",
            shown="only what is new",
            sentence="The early groups got all {sent} messages, the late one none of the "
            "{sent before the last group came} that were sent before it came.",
            does="give a late group only what is new",
            again="give it only what is new",
        ),
        "history": Outcome(
            mark="keeps",
            shown="all {history for the late group} older ones",
            sentence="Each group got all {sent} messages, the late one also the "
            "{history for the late group} that were sent before it came.",
            does="give a late group history",
            again="give it history",
        ),
    },
    see=see,
    expect=expect,
    needs=(Need("history", "history for a service that is added later", frozenset({"history"})),),
)
