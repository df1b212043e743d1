"""What becomes of the work of a worker that is killed?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Seen
from gearshift.compare.ledger import Column, Event, Meta, TrialRecord

__all__ = ["JUDGE", "swimlane"]


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
    return Seen(
        outcome="lost" if lost else "unflagged" if unflagged else "flagged",
        numbers=(
            ("sent", "messages", len(measures.confirmed(events))),
            ("lost", "messages", len(lost)),
            ("delivered again", "deliveries", len(again)),
            ("handled twice", "messages", measures.duplicates(events)),
            ("marked as redelivered", "deliveries", measures.flagged(events)),
            ("came again unmarked", "deliveries", unflagged),
            ("until it came again", "ms", min(returned) - killed.at_ms if returned else None),
        ),
        charts=(swimlane(events),),
    )


def expect(column: Column, _meta: Meta) -> Expectation:
    """Unfinished work returns, and may say so."""
    if not column.capabilities["redelivery"]:
        return Expectation(
            outcome="lost", sentence="Unfinished work is lost.", because="redelivery=false"
        )
    known = column.capabilities["redelivered"]
    because = f"redelivery=true, redelivered={known}"
    if known == "none":
        return Expectation(
            outcome="unflagged",
            sentence="Unfinished work comes again, and nothing says that it does.",
            because=because,
        )
    return Expectation(
        outcome="flagged",
        sentence="Unfinished work comes again, and is marked as redelivered.",
        because=because,
    )


def swimlane(events: Sequence[Event]) -> Chart:
    """Deliveries by worker and time; the kill is a row of its own."""
    rows: list[tuple[Cell, ...]] = [
        (
            *(span.worker, span.seq, span.key, span.start_ms, span.end_ms),
            *(span.attempt, span.state, span.again),
        )
        for span in measures.spans(events)
    ]
    rows += [
        (event.who, None, None, event.at_ms, event.at_ms, None, "kill", False)
        for event in events
        if event.kind == "fault"
    ]
    return Chart.of("swimlane", "Workers through the crash", rows)


JUDGE = Judge(
    title="Crash of a worker",
    question="A worker process is killed inside its handler: what is lost, what comes twice?",
    handler="Ack after the work, never before it. Be idempotent on the message id: what comes "
    "again may have been done already, and may not be marked.",
    ranks=("lost", "unflagged", "flagged"),
    shown={
        "lost": "LOST {lost} of {sent}",
        "unflagged": "0 lost, {delivered again} again, unmarked",
        "flagged": "0 lost, {delivered again} again, marked",
    },
    sentence={
        "lost": "{lost} of {sent} confirmed messages were never handled.",
        "unflagged": "Nothing was lost; {delivered again} deliveries came again, "
        "{came again unmarked} of them unmarked; {handled twice} messages were handled twice.",
        "flagged": "Nothing was lost; {delivered again} deliveries came again, each marked as "
        "redelivered; {handled twice} messages were handled twice.",
    },
    see=see,
    expect=expect,
    needs=(
        Need("a crash that loses nothing", frozenset({"flagged", "unflagged"})),
        Need("to be told that a message comes again", frozenset({"flagged"})),
    ),
)
