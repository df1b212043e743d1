"""What a rehearsal shows: hand-made runs, known answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gearshift.compare.ledger import Column, Event, TrialRecord
from gearshift.compare.rehearsal import Rehearsal, Result, judge
from gearshift.compare.rehearsal.document import FIELDS, Original, Variant, VariantRun
from gearshift.rehearsal import Captured

COUNT = 3
AS_SENT = dict.fromkeys(FIELDS, "as sent")


def event(kind: Any, seq: int, at_ms: float, **fields: Any) -> Event:
    return Event(at_ms=at_ms, kind=kind, who=fields.pop("who", "w"), seq=seq, key="k", **fields)


def sent(seq: int) -> list[Event]:
    return [event("send", seq, 0.0), event("receipt", seq, 0.5)]


def handled(seq: int, at_ms: float, digests: dict[str, str] = AS_SENT, **more: Any) -> list[Event]:
    """Delivered as ``digests`` say and done a little later."""
    return [
        event("deliver", seq, at_ms, digests=digests, **more),
        event("done", seq, at_ms + 1, digests={"returned": "x"}, **more),
        event("settle", seq, at_ms + 1, what="ack", **more),
    ]


def given_up(seq: int, at_ms: float, why: str = "KeyError: 'total'") -> list[Event]:
    return [
        event("deliver", seq, at_ms, digests=AS_SENT),
        event("failed", seq, at_ms + 1, what=why),
        event("settle", seq, at_ms + 1, what="reject"),
    ]


FINE = [one for seq in range(COUNT) for one in (*sent(seq), *handled(seq, 10.0 * seq))]


def variant_run(
    variant: Variant, events: Sequence[Event], captured: Sequence[Captured], error: str | None
) -> VariantRun:
    trial = TrialRecord(
        repetition=1,
        channel="c",
        error=error,
        events=tuple(sorted(events, key=lambda one: one.at_ms)),
    )
    return VariantRun(variant=variant, trial=trial, captured=tuple(captured))


def result(
    new: Sequence[Event] = FINE,
    old: Sequence[Event] = FINE,
    again: Sequence[Event] | None = None,
    *,
    captured: Sequence[Sequence[Captured]] = ((), (), ()),
    error: str | None = None,
) -> Result:
    """The judgement on three runs, all of which are fine unless given."""
    sides = [
        Column(
            id=name, profile=name, semantics="queue", backend="b", server="s", embedded=True,
            capabilities={},
        )
        for name in ("old", "new")
    ]  # fmt: skip
    given = (("old", old, None), ("again", old if again is None else again, None),
             ("new", new, error))  # fmt: skip
    return judge(
        Rehearsal(
            started_at="", duration_s=1, channel="orders", handler="m:f", workers=1, repeated=0,
            versions={}, machine={}, old=sides[0], new=sides[1],
            originals=tuple(
                Original(id=f"id-{seq}", key="k", bytes=1, digests=AS_SENT) for seq in range(COUNT)
            ),
            runs=tuple(
                variant_run(variant, events, sends, failed)  # type: ignore[arg-type]
                for (variant, events, failed), sends in zip(given, captured, strict=True)
            ),
        )
    )  # fmt: skip


def verdict(found: Result, aspect: str) -> str:
    return next(one.relation for one in found.differences if one.aspect == aspect)


def test_two_likes_are_safe() -> None:
    """No aspect differs, and the sentence names the number that was seen."""
    found = result()
    assert found.verdict == "safe"
    assert "3 messages" in found.sentence
    assert {one.relation for one in found.differences} == {"same", "measured"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_not_carried_differs(field: str) -> None:
    """Payload, headers, key and the rest; the message is named."""
    new = [one for seq in (0, 2) for one in (*sent(seq), *handled(seq, 10.0 * seq))]
    new += [*sent(1), *handled(1, 10.0, AS_SENT | {field: "otherwise"})]
    found = result(new)
    assert verdict(found, field) == "differs"
    assert f"1 messages arrive with another {field}" in found.sentence
    assert next(one for one in found.differences if one.aspect == field).examples == ("id-1",)


def test_a_field_that_old_does_not_carry_either_is_no_difference() -> None:
    """And one that only NEW carries is better."""
    lossy = [*FINE, *sent(0), *handled(0, -1.0, AS_SENT | {"headers": "gone"})]
    assert verdict(result(lossy, lossy), "headers") == "same"
    assert verdict(result(FINE, lossy), "headers") == "better"


def test_what_new_cannot_store_differs() -> None:
    """With the reason."""
    new = [one for one in FINE if one.seq != 2]
    new += [event("send", 2, 0.0), event("refused", 2, 0.1, what="MessageTooLarge: 2 MB")]
    found = result(new)
    assert verdict(found, "stored") == "differs"
    assert "1 of 3 messages cannot be stored there (MessageTooLarge: 2 MB)" in found.sentence


def test_order_that_only_new_breaks_differs() -> None:
    """Which messages it is, is chance: where OLD breaks it too, nothing is said."""
    broken = [*sent(0), *sent(1), *sent(2), *handled(1, 1.0), *handled(0, 5.0), *handled(2, 9.0)]
    assert verdict(result(broken), "order per key") == "differs"
    assert verdict(result(broken, FINE, broken), "order per key") == "same"
    assert verdict(result(FINE, broken), "order per key") == "better"


def test_lost_and_repeated_messages_differ() -> None:
    """Stored and never ended; done twice."""
    lost = [one for one in FINE if one.seq != 1 or one.kind in ("send", "receipt")]
    assert verdict(result(lost), "not handled") == "differs"
    assert verdict(result([*FINE, *handled(0, 50.0)]), "handled twice") == "differs"


def test_another_end_in_the_handler_differs() -> None:
    """Given up there and not here, and the error is told; on both it is the same."""
    failing = [one for one in FINE if one.seq != 1] + [*sent(1), *given_up(1, 10.0)]
    found = result(failing)
    assert verdict(found, "handler ended") == "differs"
    assert "KeyError: 'total'" in found.sentence
    assert result(failing, failing).verdict == "safe"


def test_sends_are_compared_message_by_message() -> None:
    """Another channel or key is one thing, other contents another; their order is none."""
    a = Captured(channel="billed", key="k", contents="1", seq=0)
    b = Captured(channel="billed", key="k", contents="2", seq=0)
    elsewhere = Captured(channel="mails", key="k", contents="1", seq=0)
    assert result(captured=([a, b], [b, a], [b, a])).verdict == "safe"
    moved = result(captured=([a], [a], [elsewhere]))
    assert verdict(moved, "handler sent") == "differs"
    other = result(captured=([a], [a], [b]))
    assert (verdict(other, "handler sent"), verdict(other, "contents sent")) == ("same", "differs")


def test_what_varies_on_old_is_unclear() -> None:
    """It is no difference, and the sentence says what to compare by hand."""
    one, two, three = (Captured(channel="c", key=None, contents=name, seq=0) for name in "123")
    found = result(captured=([one], [two], [three]))
    assert verdict(found, "contents sent") == "unclear"
    assert found.verdict == "safe"
    assert "compare by hand: contents sent" in found.sentence


def test_threads_of_the_handlers_own_are_compared_as_a_whole() -> None:
    """Nobody can say for which message they sent."""
    beside = Captured(channel="c", key=None, contents="1")
    found = result(captured=([beside], [beside], [beside, beside]))
    assert verdict(found, "sent beside the handler") == "differs"


def test_a_side_that_did_not_finish_says_nothing() -> None:
    """Unless what it did show differs already."""
    assert result(error="not within 30 s").verdict == "inconclusive"
