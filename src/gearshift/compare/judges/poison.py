"""What does a message do to the others that can never be handled?"""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare import measures
from gearshift.compare.findings import Cell, Chart, Expectation
from gearshift.compare.judges.judge import Judge, Need, Outcome, Seen
from gearshift.compare.ledger import Column, Event, Meta, TrialRecord

__all__ = ["JUDGE"]


def see(trials: Sequence[TrialRecord]) -> Seen:
    """Watch what is handled between the first failure and the end of the poison."""
    (trial,) = trials
    events = trial.events
    failures = [event for event in events if event.kind == "failed"]
    if not failures:
        return Seen(outcome=None, why="no message failed")
    seq, key = failures[0].seq or 0, failures[0].key
    buried = seq in measures.dead(events)
    end_ms = failures[-1].at_ms
    meanwhile = [
        event
        for event in events
        if event.kind == "done" and failures[0].at_ms < event.at_ms < end_ms
    ]
    same = sum(event.key == key and (event.seq or 0) > seq for event in meanwhile)
    others = sum(event.key != key for event in meanwhile)
    return Seen(
        outcome=_outcome(buried, same, others),
        numbers=(
            ("attempts", "", sum(event.seq == seq for event in failures)),
            ("from the first failure to the last", "ms", end_ms - failures[0].at_ms),
            ("its key meanwhile", "messages", same),
            ("other keys meanwhile", "messages", others),
            ("dead letters", "messages", len(measures.dead(events))),
        ),
        charts=(_chart(events, seq, failures[0].at_ms),),
    )


def expect(column: Column, meta: Meta) -> Expectation:
    """A key waits for a retry if the consumer holds the message, not if the broker does."""
    capabilities = column.capabilities
    if not capabilities["dead_letter"]:
        return Expectation("dropped", "It is dropped in the end.", "dead_letter=false")
    is_native = capabilities["native_retry"] and capabilities["native_delay"]
    because = (
        f"native_retry={str(capabilities['native_retry']).lower()}, "
        f"native_delay={str(capabilities['native_delay']).lower()}, dead_letter=true"
    )
    if is_native or not meta.keys:
        return Expectation(
            "overtaken",
            "It waits in the broker; everything else goes on, also what has its key.",
            because if meta.keys else f"{because}, sent without keys",
        )
    return Expectation(
        "key_waits", "It waits with its consumer; its key waits with it, other keys go on.", because
    )


def _outcome(buried: bool, same: int, others: int) -> str:
    if not buried:
        return "dropped"
    if not others:
        return "blocked"
    return "overtaken" if same else "key_waits"


def _chart(events: Sequence[Event], poison: int, failed_ms: float) -> Chart:
    tries = 0
    rows: list[tuple[Cell, ...]] = []
    for span in measures.spans(events):
        tries += span.seq == poison
        number = tries if span.seq == poison else None
        rows.append((span.key, span.seq + 1, round(span.start_ms - failed_ms, 1), number))
    return Chart.of("poison", "Each key's messages, by time since the first failure", rows)


JUDGE = Judge(
    title="Poison message",
    subject="A key's order around a message that fails",
    question="One message fails at every attempt: who waits for it, and where does it end?",
    handler="Reject at once what can never succeed. Watch the dead letters. Where later messages "
    "of the same key overtake a failed one, be ready for them to come first.",
    outcomes={
        "dropped": Outcome(
            mark="loses",
            shown="NOT in the dead letters",
            sentence="After {attempts} attempts it was not in the dead letters.",
            does="drop a message that always fails",
            again="drop it",
        ),
        "blocked": Outcome(
            mark="loses",
            shown="BLOCKS all others",
            sentence="Nothing else was handled while it was tried {attempts} times.",
            does="let everything wait for a message that fails",
            again="let everything wait",
        ),
        "overtaken": Outcome(
            mark="loses",
            shown="{its key meanwhile} of its key overtook it; dead letter after {attempts} tries",
            sentence="It was tried {attempts} times and became a dead letter; meanwhile {its key "
            "meanwhile} messages of its key and {other keys meanwhile} of others were handled.",
            does="let nothing wait for a message that fails",
            again="let nothing wait",
        ),
        "key_waits": Outcome(
            mark="keeps",
            shown="its key waited {from the first failure to the last:unit}; "
            "dead letter after {attempts} tries",
            sentence="It was tried {attempts} times and became a dead letter; its key waited, "
            "{other keys meanwhile} messages of other keys were handled meanwhile.",
            does="let a key wait for its message that fails",
            again="let its key wait",
        ),
    },
    see=see,
    expect=expect,
    needs=(
        Need("order-through-retries", "a key's order kept through retries",
             frozenset({"key_waits"})),
        Need("no-waiting", "progress of all others while one message fails",
             frozenset({"overtaken"})),
    ),
)  # fmt: skip
