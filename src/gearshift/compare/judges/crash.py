"""What becomes of the work of a worker that is killed?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Outcome, Seen
from gearshift.compare.ledger import Column, Event, Meta, TrialRecord

__all__ = ["JUDGE"]

#: Messages with shorter pauses between them are one bar of the chart.
_PAUSE_MS = 20.0


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Account for every confirmed message after a SIGKILL."""
    (trial,) = trials
    events = trial.events
    killed = next((event for event in events if event.kind == "fault"), None)
    stuck = next((event for event in events if event.kind == "stuck"), None)
    if killed is None or stuck is None:
        return Seen(outcome=None, why="no worker was killed in its handler")
    lost, again = measures.lost(events), measures.redeliveries(events)
    unflagged = measures.unflagged(events)
    if not lost and not again:
        return Seen(outcome=None, why="nothing came again and nothing is lost")
    returned = [event.at_ms for event in again if event.seq == stuck.seq]
    gap_ms = min(returned) - killed.at_ms if returned else None
    return Seen(
        outcome="lost" if lost else "unflagged" if unflagged else "flagged",
        numbers=(
            ("sent", "messages", len(measures.confirmed(events))),
            ("lost", "messages", len(lost)),
            ("delivered again", "deliveries", len(again)),
            ("handled twice", "messages", measures.duplicates(events)),
            ("marked as redelivered", "deliveries", measures.flagged(events)),
            ("came again unmarked", "deliveries", unflagged),
            ("until it came again", "ms", gap_ms),
        ),
        charts=(_chart(events, killed, gap_ms),),
    )


def expect(column: Column, _meta: Meta) -> Expectation:
    """Unfinished work returns, and may say so."""
    if not column.capabilities["redelivery"]:
        return Expectation("lost", "Unfinished work is lost.", "redelivery=false")
    known = column.capabilities["redelivered"]
    because = f"redelivery=true, redelivered={known}"
    if known == "none":
        return Expectation(
            "unflagged", "Unfinished work comes again, and nothing says that it does.", because
        )
    return Expectation(
        "flagged", "Unfinished work comes again, and is marked as redelivered.", because
    )


def _chart(events: Sequence[Event], killed: Event, gap_ms: float | None) -> Chart:
    """What each worker was busy with, by time since the kill."""
    rows: list[tuple[Cell, ...]] = []
    spans = (
        span if span.end_ms is not None else span._replace(end_ms=killed.at_ms)
        for span in measures.spans(events)
    )
    for stretch in measures.stretches(spans, _PAUSE_MS):
        start_ms, end_ms = (
            round(at_ms - killed.at_ms, 1) for at_ms in (stretch.start_ms, stretch.end_ms)
        )
        rows.append((stretch.worker, start_ms, end_ms, stretch.messages, stretch.state))
    if gap_ms is not None:
        rows.append((killed.who, 0.0, round(gap_ms, 1), 1, "waits"))
    return Chart.of("crash", "The workers, by time since the kill", rows)


JUDGE = Judge(
    title="Crash of a worker",
    subject="A killed worker's messages",
    question="A worker process is killed inside its handler: what is lost, what comes twice?",
    handler="Ack after the work, never before it. Be idempotent on the message id: a message that "
    "comes again may have been handled already, and may not be marked.",
    outcomes={
        "lost": Outcome(
            mark="loses",
            shown="LOST {lost} of {sent}",
            sentence="{lost} of {sent} confirmed messages were never handled.",
            does="lose a killed worker's messages",
            again="lose what it had",
        ),
        "unflagged": Outcome(
            mark="keeps",
            shown="0 of {sent} lost; back after {until it came again:unit}; "
            "{delivered again:unit} again, unmarked",
            sentence="Nothing was lost. What the worker had in hand came again after {until it "
            "came again:unit}; {delivered again:unit} again, {came again unmarked} unmarked; "
            "{handled twice:unit} done twice.",
            does="bring back what a killed worker had, unmarked",
            again="bring it back unmarked",
        ),
        "flagged": Outcome(
            mark="keeps",
            shown="0 of {sent} lost; back after {until it came again:unit}; "
            "{delivered again:unit} again, marked",
            sentence="Nothing was lost. What the worker had in hand came again after {until it "
            "came again:unit}; {delivered again:unit} again, all marked as redelivered; "
            "{handled twice:unit} done twice.",
            does="mark what comes again after a crash",
            again="mark it",
        ),
    },
    see=see,
    expect=expect,
    needs=(
        Need("no-loss", "a crash that loses nothing", frozenset({"flagged", "unflagged"})),
        Need("marked-repeats", "repeated deliveries marked as such", frozenset({"flagged"})),
    ),
)
