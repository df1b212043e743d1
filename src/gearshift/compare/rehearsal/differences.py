"""Compares NEW with OLD, aspect by aspect. Pure functions over the document of a rehearsal.

OLD is run twice. What differs between those two varies by itself (a time in a message, the turns of
three workers), so it says nothing against NEW and is told as ``unclear``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from gearshift.compare import measures
from gearshift.compare.rehearsal.document import FIELDS, Rehearsal
from gearshift.compare.rehearsal.sides import Side, Sides

__all__ = ["Difference", "Relation", "Result", "judge"]

Relation = Literal["same", "better", "differs", "unclear", "measured"]

#: Fields that are always told; others only where they differ.
_ALWAYS = ("payload", "headers", "key")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One aspect. ``sentence`` says what differs; ``examples`` are ids of messages."""

    aspect: str
    old: str
    new: str
    relation: Relation
    sentence: str = ""
    examples: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole in one sentence, and every aspect."""

    verdict: Literal["safe", "differs", "inconclusive"]
    sentence: str
    differences: tuple[Difference, ...]


def judge(rehearsal: Rehearsal) -> Result:
    """Compare the sides of ``rehearsal``."""
    sides = Sides(*(Side(rehearsal.originals, run) for run in rehearsal.runs))
    found = (
        _stored(sides),
        *(
            _field(sides, field)
            for field in FIELDS
            if field in _ALWAYS or sides.old.changed(field) or sides.new.changed(field)
        ),
        _order(sides),
        _of_sets(
            sides,
            "not handled",
            lambda side: side.lost,
            lambda found: f"{len(found):,}",
            lambda found: f"{len(found):,} messages were not handled to the end",
            by_chance=True,
        ),
        _of_sets(
            sides,
            "handled twice",
            lambda side: {seq for seq, times in measures.done(side.events).items() if times > 1},
            lambda found: f"{len(found):,}",
            lambda found: f"{len(found):,} messages were handled twice",
            by_chance=True,
        ),
        *(_of_handler(sides, aspect) for aspect in _HANDLER),
        _outside(sides),
        Difference(
            aspect="time in the handler",
            old=_typical_ms(sides.old),
            new=_typical_ms(sides.new),
            relation="measured",
        ),
    )
    verdict, sentence = _in_one(rehearsal, found)
    return Result(verdict=verdict, sentence=sentence, differences=found)


def _in_one(
    rehearsal: Rehearsal, found: Sequence[Difference]
) -> tuple[Literal["safe", "differs", "inconclusive"], str]:
    old, new, count = rehearsal.old.id, rehearsal.new.id, len(rehearsal.originals)
    different = [one.sentence for one in found if one.relation == "differs"]
    if different:
        return "differs", f"Do not switch {rehearsal.channel} to {new} yet: {'; '.join(different)}."
    for run in rehearsal.runs:
        if run.trial.error is not None:
            return "inconclusive", f"Nothing can be said: {run.trial.error}."
    unclear = [one.aspect for one in found if one.relation == "unclear"]
    safe = f"Safe to switch as far as {count:,} messages show: {new} did what {old} did"
    if unclear:
        safe += f"; by itself on {old} varies, so compare by hand: {', '.join(unclear)}"
    return "safe", safe + "."


# ── On the way ───────────────────────────────────────────────────────────────────────────────────


def _of_sets(
    sides: Sides,
    aspect: str,
    see: Callable[[Side], set[int]],
    shown: Callable[[set[int]], str],
    sentence: Callable[[set[int]], str],
    *,
    by_chance: bool = False,
) -> Difference:
    """Compare something that is true of some messages: one of which only NEW has it differs.

    Where it is chance which messages it meets, only whether it happens at all can differ.
    """
    old, again, new = see(sides.old), see(sides.again), see(sides.new)
    before = (old or again) if by_chance else old | again
    more = set() if by_chance and before else new - before
    fewer = set() if by_chance and new else before - new
    return Difference(
        aspect=aspect,
        old=shown(before),
        new=shown(new),
        relation="differs" if more else "better" if fewer else "same",
        sentence=sentence(more) if more else "",
        examples=sides.ids(more),
    )


def _stored(sides: Sides) -> Difference:
    total, old, new = len(sides.old.originals), sides.old.refused, sides.new.refused
    reasons = "; ".join(sorted({new[seq] for seq in new.keys() - old.keys()}))
    return _of_sets(
        sides,
        "stored",
        lambda side: set(side.refused),
        lambda found: f"{total - len(found):,} of {total:,}",
        lambda more: f"{len(more):,} of {total:,} messages cannot be stored there ({reasons})",
    )


def _field(sides: Sides, field: str) -> Difference:
    return _of_sets(
        sides,
        field,
        lambda side: side.changed(field),
        lambda found: f"changed in {len(found):,}" if found else "as sent",
        lambda more: f"{len(more):,} messages arrive with another {field}",
    )


def _order(sides: Sides) -> Difference:
    if not any(original.key for original in sides.old.originals):
        return Difference(aspect="order per key", old="no keys", new="no keys", relation="same")
    return _of_sets(
        sides,
        "order per key",
        lambda side: side.disordered,
        lambda found: f"{len(found):,} overtook" if found else "kept",
        lambda found: f"{len(found):,} messages overtake one of their own key, or run beside it",
        by_chance=True,
    )


# ── In the handler ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Aspect:
    name: str
    see: Callable[[Side], Mapping[int, object]]
    total: Callable[[Side], str]
    sentence: str


_HANDLER = (
    _Aspect(
        "handler ended",
        lambda side: side.ended,
        lambda side: _counted(side.ended),
        "for {count} messages the handler ends otherwise ({example})",
    ),
    _Aspect(
        "attempts that failed",
        lambda side: side.failures,
        lambda side: f"{side.failures.total():,}",
        "{count} messages need other attempts",
    ),
    _Aspect(
        "handler returned",
        lambda side: side.returned,
        lambda side: f"{len(side.returned):,} values",
        "for {count} messages the handler returns something else",
    ),
    _Aspect(
        "handler sent",
        lambda side: side.sends(lambda one: (one.channel, one.key)),
        lambda side: f"{sum(one.seq is not None for one in side.run.captured):,}",
        "for {count} messages the handler sends to other channels or keys, or another number",
    ),
    _Aspect(
        "contents sent",
        lambda side: side.sends(lambda one: (one.channel, one.key, one.contents)),
        lambda side: f"{len({one.contents for one in side.run.captured}):,} different",
        "for {count} messages the handler sends other contents",
    ),
)


def _of_handler(sides: Sides, aspect: _Aspect) -> Difference:
    old, again, new = aspect.see(sides.old), aspect.see(sides.again), aspect.see(sides.new)
    reached = sides.old.ended.keys() & sides.again.ended.keys() & sides.new.ended.keys()
    unsteady = {seq for seq in reached if old.get(seq) != again.get(seq)}
    different = {seq for seq in reached - unsteady if old.get(seq) != new.get(seq)}
    example = new.get(min(different), "") if different else ""
    return Difference(
        aspect=aspect.name,
        old=aspect.total(sides.old),
        new=aspect.total(sides.new),
        relation="differs" if different else "unclear" if unsteady else "same",
        sentence=aspect.sentence.format(count=f"{len(different):,}", example=example)
        if different
        else "",
        examples=sides.ids(different or unsteady),
    )


def _outside(sides: Sides) -> Difference:
    old, again, new = sides.old.outside, sides.again.outside, sides.new.outside
    steady = old == again
    return Difference(
        aspect="sent beside the handler",
        old=f"{old.total():,}",
        new=f"{new.total():,}",
        relation="same" if old == new else "differs" if steady else "unclear",
        sentence="threads of the handler's own send something else" if old != new else "",
    )


def _typical_ms(side: Side) -> str:
    took = sorted(
        span.end_ms - span.start_ms
        for span in measures.spans(side.events)
        if span.end_ms is not None
    )
    return f"{took[len(took) // 2]:,.1f} ms" if took else "n/a"


def _counted(ended: Mapping[int, str]) -> str:
    done = sum(end == "done" for end in ended.values())
    return f"{done:,} done, {len(ended) - done:,} given up"
