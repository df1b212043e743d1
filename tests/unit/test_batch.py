"""The states of the messages of a batch: no threads, no clock, no driver."""

from __future__ import annotations

import pytest

from gearshift import errors
from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.publishing.batch import Batch, State
from gearshift.driver import Outcome, Stored
from gearshift.message import Message, Position, Receipt

LOST = errors.ConnectionFailed("cut")
REFUSED = errors.PublishRefused("no")
FAILURES = ErrorTranslator(None, "fake", "c")  # type: ignore[arg-type]

YES = Outcome(0, Stored.YES)
NO = Outcome(0, Stored.NO, None, REFUSED)
CUT = Outcome(0, Stored.UNKNOWN, None, LOST)
CERTAINLY_NOT = Outcome(0, Stored.NO, None, LOST)


def batch(count: int = 1) -> Batch:
    return Batch([Message(b"%d" % number, id=f"id-{number}") for number in range(count)], 10.0)


def take(sent: Batch, *outcomes: Outcome) -> errors.GearshiftError | None:
    return sent.record(outcomes, "c", FAILURES)


def expire(sent: Batch) -> None:
    sent.expire(lambda: errors.ConnectionFailed("not stored"), LOST)


def test_a_new_batch_has_no_results() -> None:
    sent = batch(2)
    assert sent.states == [State.NEW, State.NEW]
    assert sent.unresolved() == [0, 1]
    assert sent.handed_at is None
    assert not sent.is_finished


def test_all_is_handed_over_at_first_and_then_what_has_no_result() -> None:
    sent = batch(3)
    assert list(sent.hand_over(1.0)) == [0, 1, 2]
    take(sent, Outcome(1, Stored.YES, Position(0, 7)))
    assert list(sent.hand_over(2.0)) == [0, 2]
    assert sent.handed_at == 2.0
    assert sent.states == [State.MAYBE_STORED, State.DONE, State.MAYBE_STORED]
    assert sent.results == [None, Receipt("id-1", "c", Position(0, 7)), None]


@pytest.mark.parametrize(
    ("before", "resent"), [([], False), ([CERTAINLY_NOT], False), ([CUT], True)]
)
def test_a_receipt_is_resent_if_an_earlier_driver_may_have_stored_it(
    before: list[Outcome], resent: bool
) -> None:
    sent = batch()
    sent.hand_over(1.0)
    if before:
        assert take(sent, *before) is LOST
        sent.hand_over(2.0)
    assert take(sent, YES) is None
    assert sent.results == [Receipt("id-0", "c", None, resent)]
    assert sent.resent == resent
    assert sent.is_finished


def test_a_doubt_outlives_every_later_driver() -> None:
    """Unknown to the first, certainly not stored by the second and the third: still a doubt."""
    sent = batch()
    for outcome in (CUT, CERTAINLY_NOT, CERTAINLY_NOT):
        sent.hand_over(1.0)
        take(sent, outcome)
    assert sent.states == [State.MAYBE_STORED]
    expire(sent)
    assert isinstance(sent.results[0], errors.OutcomeUnknown)


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ([NO], errors.PublishRefused),
        ([CERTAINLY_NOT, NO], errors.PublishRefused),
        ([CUT, NO], errors.OutcomeUnknown),
        ([Outcome(0, Stored.UNKNOWN, None, REFUSED)], errors.OutcomeUnknown),
    ],
)
def test_a_refusal_is_final_and_certain_only_without_a_doubt(
    outcomes: list[Outcome], kind: type[errors.GearshiftError]
) -> None:
    sent = batch()
    for outcome in outcomes:
        sent.hand_over(1.0)
        take(sent, outcome)
    assert [type(result) for result in sent.results] == [kind]
    assert sent.errors == sent.results


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ([], errors.ConnectionFailed),
        ([CERTAINLY_NOT], errors.ConnectionFailed),
        ([None], errors.OutcomeUnknown),
        ([CUT], errors.OutcomeUnknown),
        ([CUT, None], errors.OutcomeUnknown),
    ],
)
def test_a_deadline_says_that_nothing_is_stored_only_if_that_is_certain(
    outcomes: list[Outcome | None], kind: type[errors.GearshiftError]
) -> None:
    """Each hand-over is followed by an outcome, or by none."""
    sent = batch()
    for outcome in outcomes:
        sent.hand_over(1.0)
        if outcome is not None:
            take(sent, outcome)
    expire(sent)
    assert [type(result) for result in sent.results] == [kind]
    assert sent.is_finished
    assert sent.hand_over(9.0) == []


def test_an_outcome_after_the_deadline_changes_nothing() -> None:
    sent = batch()
    sent.hand_over(1.0)
    expire(sent)
    results = list(sent.results)
    assert take(sent, YES) is None
    assert sent.results == results
    assert (sent.remaining, sent.resent) == (0, 0)


def test_a_failure_that_ends_the_driver_is_told_though_the_message_has_its_result() -> None:
    """A refused password is final for the message, and the driver is of no more use either."""
    sent = batch(2)
    sent.hand_over(1.0)
    refused = errors.AuthenticationFailed("password")
    assert take(sent, Outcome(0, Stored.NO, None, refused), Outcome(1, Stored.YES)) is refused
    assert sent.results == [refused, Receipt("id-1", "c")]


def test_each_message_that_is_too_large_has_an_error_with_its_own_size() -> None:
    sent = batch(2)
    sent.hand_over(1.0)
    whole = errors.MessageTooLarge("over the limit")
    take(sent, Outcome(0, Stored.NO, None, whole), Outcome(1, Stored.NO, None, whole))
    first, second = sent.errors
    assert first is not second
    assert "1 bytes with key and headers: over the limit" in str(first)
