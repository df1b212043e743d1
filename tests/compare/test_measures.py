"""Counting in a ledger: hand-made events, known answers."""

from __future__ import annotations

from gearshift.compare import measures
from gearshift.compare.ledger import Event


def event(kind: str, seq: int | None = None, at_ms: float = 0.0, **fields: object) -> Event:
    return Event(at_ms=at_ms, kind=kind, who=str(fields.pop("who", "w")), seq=seq, **fields)  # type: ignore[arg-type]


def handled(seq: int, at_ms: float, **fields: object) -> list[Event]:
    """A delivery that is done 10 ms later."""
    key = str(fields.pop("key", "k"))
    done = {name: value for name, value in fields.items() if name == "who"}
    return [
        event("deliver", seq, at_ms, key=key, **fields),
        event("done", seq, at_ms + 10, key=key, **done),
    ]


def test_lost_is_what_was_confirmed_and_never_done() -> None:
    """A refused message is not lost, a dead letter neither."""
    events = [event("receipt", seq) for seq in range(4)] + [event("refused", 9)]
    events += [*handled(0, 5.0), event("dead", 2)]
    assert measures.lost(events) == {1, 3}


def test_duplicates_count_what_was_done_again() -> None:
    """Twice delivered but once done is no duplicate."""
    events = handled(0, 0.0) + handled(0, 20.0) + handled(0, 40.0)
    events += [event("deliver", 1, 50.0), *handled(1, 60.0)]
    assert measures.duplicates(events) == 2
    assert [found.seq for found in measures.redeliveries(events)] == [0, 0, 1]


def test_unflagged_are_redeliveries_that_do_not_say_so() -> None:
    """A first delivery need not be flagged."""
    events = [
        event("deliver", 0, redelivered=False),
        event("deliver", 0, redelivered=True),
        event("deliver", 0, redelivered=None),
    ]
    assert measures.unflagged(events) == 1
    assert measures.flagged(events) == 1


def test_inversions_are_those_that_came_too_late() -> None:
    """Over all messages, and within a key."""
    assert measures.inversions([0, 2, 1, 3, 4]) == [1]
    events = [
        event("deliver", 1, key="a"),
        event("deliver", 0, key="b"),
        event("deliver", 3, key="a"),
        event("deliver", 2, key="a"),
    ]
    assert measures.key_inversions(events) == [2]


def test_overlaps_are_messages_of_a_key_handled_at_once() -> None:
    """Beginning before an earlier one has ended; another key's do not count."""
    events = sorted(
        [
            *handled(0, 0.0, key="a", who="w1"),
            *handled(1, 5.0, key="a", who="w2"),
            *handled(2, 5.0, key="b", who="w3"),
            *handled(3, 15.0, key="a", who="w1"),
        ],
        key=lambda one: one.at_ms,
    )
    assert measures.overlaps(events) == [1]


def test_a_span_that_never_ended_was_killed() -> None:
    """And the next delivery of the message is marked as coming again."""
    events = [event("deliver", 0, 1.0, who="victim"), *handled(0, 100.0, who="survivor")]
    spans = measures.spans(events)
    assert [(span.worker, span.state, span.again) for span in spans] == [
        ("victim", "killed", False),
        ("survivor", "done", True),
    ]


def test_the_backlog_is_what_is_confirmed_and_not_done() -> None:
    """It rises with receipts and falls with work, also where work is quicker than its receipt."""
    events = [event("receipt", 0, 1.0), event("receipt", 1, 2.0), event("done", 0, 3.0)]
    events += [event("done", 2, 4.0), event("receipt", 2, 5.0)]
    assert [waiting for _, waiting in measures.backlog(events)] == [1, 2, 1, 1]
