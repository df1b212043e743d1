"""A dead letter is the message as it was, with its story, and its fate is always told."""

from __future__ import annotations

from typing import Any

import pytest

from gearshift import errors
from gearshift._core.consuming.dead_letters import MAX_REASON, DeadLetters, revived
from gearshift._core.publishing.batch import Batch
from gearshift.message import Headers, Message, Receipt


class PublishBuffer:
    """Takes batches; a test says how they end."""

    def __init__(self, refusal: errors.GearshiftError | None = None) -> None:
        self.refusal = refusal
        self.batches: list[Batch] = []
        self.closed_with: list[float] = []

    def put(self, batch: Batch) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.batches.append(batch)

    def close(self, timeout_s: float) -> None:
        self.closed_with.append(timeout_s)

    def end(self, result: Any) -> None:
        (batch,) = self.batches
        batch.results[0] = result
        assert batch.on_done is not None
        batch.on_done(batch)

    @property
    def letter(self) -> Message:
        return self.batches[-1].messages[0]


@pytest.fixture
def buffer() -> PublishBuffer:
    return PublishBuffer()


def dead_letters(buffer: PublishBuffer) -> DeadLetters:
    return DeadLetters(lambda: buffer, channel="orders", group="billing")  # type: ignore[arg-type,return-value]


MESSAGE = Message(
    b"\xff", "key", Headers([("a", "1"), ("a", b"2")]), "id-1", "image/png", 7, "corr", "reply", "t"
)


def send(letters: DeadLetters, message: Message = MESSAGE, reason: str = "broken") -> list[Any]:
    ends: list[Any] = []
    letters.send(message, reason=reason, attempts=3, on_done=ends.append)
    return ends


def test_a_dead_letter_is_the_message_and_its_story(buffer: PublishBuffer) -> None:
    """Every field is kept, repeated headers too; why, where and how often are added."""
    send(dead_letters(buffer))
    letter = buffer.letter
    kept = [name for name in Message.__struct_fields__ if name not in ("headers", "_size")]
    assert [getattr(letter, name) for name in kept] == [getattr(MESSAGE, name) for name in kept]
    assert letter.headers.pairs[:2] == MESSAGE.headers.pairs
    story = dict(letter.headers.pairs[2:])
    assert story.pop("dead-letter-time-ms") > 0
    assert story == {
        "dead-letter-reason": "broken",
        "dead-letter-channel": "orders",
        "dead-letter-group": "billing",
        "dead-letter-attempts": 3,
    }


def test_a_second_death_replaces_the_story_of_the_first(buffer: PublishBuffer) -> None:
    """The headers do not grow, and revived it is what it was."""
    letters = dead_letters(buffer)
    send(letters, reason="first")
    send(letters, buffer.letter, reason="second")
    assert revived(buffer.letter) == MESSAGE
    assert buffer.letter.headers.getall("dead-letter-reason") == ("second",)
    assert len(buffer.letter.headers.pairs) == 7


@pytest.mark.parametrize("reason", ["x" * 5000, "\ud800 lone surrogate"])
def test_any_reason_can_be_stored(buffer: PublishBuffer, reason: str) -> None:
    """It is cut to its limit and made valid text."""
    send(dead_letters(buffer), reason=reason)
    stored = buffer.letter.headers["dead-letter-reason"]
    assert isinstance(stored, str)
    assert 0 < len(stored.encode()) <= MAX_REASON


def test_one_that_would_be_too_large_says_only_what_redrive_needs(buffer: PublishBuffer) -> None:
    """Channel and group; so the message that came may be nearly as large as the broker takes."""
    dead_letters(buffer).send(MESSAGE, reason="x", attempts=1, on_done=lambda _: None, brief=True)
    story = dict(buffer.letter.headers.pairs[2:])
    assert story == {"dead-letter-channel": "orders", "dead-letter-group": "billing"}
    assert revived(buffer.letter) == MESSAGE


def test_a_foreign_message_without_id_gets_one(buffer: PublishBuffer) -> None:
    """So that copies of the dead letter can be told."""
    send(dead_letters(buffer), Message(b"m"))
    assert buffer.letter.id


def test_the_end_is_told_once_it_is_known(buffer: PublishBuffer) -> None:
    """None only after the receipt; until then nothing."""
    ends = send(dead_letters(buffer))
    assert ends == []
    buffer.end(Receipt("id-1", "orders.dead"))
    assert ends == [None]


@pytest.mark.parametrize("error", [errors.OutcomeUnknown, errors.PublishRefused])
def test_a_dead_letter_that_is_not_confirmed_is_an_error(
    buffer: PublishBuffer, error: type[errors.GearshiftError]
) -> None:
    """The original must not be settled then."""
    ends = send(dead_letters(buffer))
    buffer.end(error("no"))
    assert [type(end) for end in ends] == [error]


def test_what_prevents_sending_is_told_and_not_raised() -> None:
    """No room, or a channel that cannot be opened."""
    full = dead_letters(PublishBuffer(errors.BackpressureError("full")))
    assert [type(end) for end in send(full)] == [errors.BackpressureError]

    def refuse() -> Any:
        raise errors.ConnectionFailed("down")

    down = DeadLetters(refuse, channel="orders", group="billing")
    assert [type(end) for end in send(down)] == [errors.ConnectionFailed]


def test_nothing_is_opened_before_the_first_death_and_once_only(buffer: PublishBuffer) -> None:
    """Closing what was never opened does nothing; else it waits for what is on its way."""
    opened: list[PublishBuffer] = []

    def open_buffer() -> Any:
        opened.append(buffer)
        return buffer

    letters = DeadLetters(open_buffer, channel="orders", group="billing")
    letters.close(1.0)
    assert opened == []
    send(letters)
    send(letters)
    letters.close(2.0)
    assert (len(opened), buffer.closed_with) == (1, [2.0])
