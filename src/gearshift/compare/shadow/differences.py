"""What a rehearsal shows: NEW against OLD, aspect by aspect. Pure functions over the document.

OLD is run twice. What differs between those two varies by itself (a time in a message, the turns of
three workers), so it says nothing against NEW and is told as ``unclear``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec

from gearshift.compare import measures
from gearshift.compare.ledger import Event
from gearshift.compare.shadow.document import FIELDS, Original, Rehearsal, VariantRun

__all__ = ["Difference", "Result", "Verdict", "judge"]

Verdict = Literal["same", "better", "differs", "unclear", "measured"]

#: Fields that are always told; others only where they differ.
_ALWAYS = ("payload", "headers", "key")

_EXAMPLES = 3


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One aspect. ``sentence`` says what differs; ``examples`` are ids of messages."""

    aspect: str
    old: str
    new: str
    verdict: Verdict
    sentence: str = ""
    examples: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole in one sentence, and every aspect."""

    verdict: Literal["safe", "differs", "inconclusive"]
    sentence: str
    differences: tuple[Difference, ...]


def judge(rehearsal: Rehearsal) -> Result:
    """What ``rehearsal`` has shown."""
    old, again, new = (_Shown(rehearsal.originals, one) for one in rehearsal.runs)
    views = _Views(rehearsal.originals, old, again, new)
    found = (
        _stored(views),
        *(one for field in FIELDS if (one := _field(views, field)) is not None),
        _order(views),
        _lost(views),
        _twice(views),
        *(_of_handler(views, aspect) for aspect in _HANDLER),
        _outside(views),
        _time(views),
    )
    verdict, sentence = _in_one(rehearsal, found)
    return Result(verdict=verdict, sentence=sentence, differences=found)


def _in_one(
    rehearsal: Rehearsal, found: Sequence[Difference]
) -> tuple[Literal["safe", "differs", "inconclusive"], str]:
    old, new, count = rehearsal.old.id, rehearsal.new.id, len(rehearsal.originals)
    different = [one.sentence for one in found if one.verdict == "differs"]
    if different:
        return "differs", f"Do not switch {rehearsal.channel} to {new} yet: {'; '.join(different)}."
    for run in rehearsal.runs:
        if run.trial.error is not None:
            return "inconclusive", f"Nothing can be said: {run.trial.error}."
    unclear = [one.aspect for one in found if one.verdict == "unclear"]
    safe = f"Safe to switch as far as {count:,} messages show: {new} did what {old} did"
    if unclear:
        safe += f"; by itself on {old} varies, so compare by hand: {', '.join(unclear)}"
    return "safe", safe + "."


# ── One run ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Shown:
    """What one run shows, counted once."""

    originals: Sequence[Original]
    run: VariantRun

    @property
    def events(self) -> Sequence[Event]:
        return self.run.trial.events

    @cached_property
    def refused(self) -> dict[int, str]:
        return {_seq(event): event.what for event in self.events if event.kind == "refused"}

    @cached_property
    def first(self) -> dict[int, Event]:
        return {_seq(event): event for event in measures.first_deliveries(self.events)}

    def changed(self, field: str) -> set[int]:
        return {
            seq
            for seq, event in self.first.items()
            if event.digests[field] != self.originals[seq].digests[field]
        }

    @cached_property
    def disordered(self) -> set[int]:
        """Overtook one of their key, or ran beside it."""
        keyed = [event for event in self.events if event.key is not None]
        within = measures.key_inversions(measures.first_deliveries(keyed))
        return {*within, *measures.overlaps(keyed)}

    @cached_property
    def ended(self) -> dict[int, str]:
        """How each message ended: "done", or "given up: " and why."""
        ends, why = {}, dict[int, str]()
        for event in self.events:
            if event.kind == "failed":
                why[_seq(event)] = event.what
            elif event.kind == "done":
                ends[_seq(event)] = "done"
            elif event.kind == "settle" and event.what == "reject":
                ends[_seq(event)] = f"given up: {why.get(_seq(event), 'rejected')}"
        return ends

    @cached_property
    def lost(self) -> set[int]:
        return measures.confirmed(self.events) - self.ended.keys()

    @cached_property
    def failures(self) -> Counter[int]:
        return Counter(_seq(event) for event in self.events if event.kind == "failed")

    @cached_property
    def returned(self) -> dict[int, str]:
        return {
            _seq(event): event.digests["returned"] for event in self.events if event.kind == "done"
        }

    def sends(self, what: Callable[..., Hashable]) -> dict[int, list[Hashable]]:
        """What was sent while each message was handled, in an order that means nothing."""
        found: dict[int, list[Hashable]] = {}
        for one in self.run.captured:
            if one.seq is not None:
                found.setdefault(one.seq, []).append(what(one))
        return {seq: sorted(sent, key=repr) for seq, sent in found.items()}

    @cached_property
    def outside(self) -> Counter[tuple[str, str | None, str]]:
        return Counter(
            (one.channel, one.key, one.contents) for one in self.run.captured if one.seq is None
        )


@dataclass(frozen=True)
class _Views:
    originals: Sequence[Original]
    old: _Shown
    again: _Shown
    new: _Shown

    def ids(self, found: set[int]) -> tuple[str, ...]:
        return tuple(self.originals[seq].id for seq in sorted(found)[:_EXAMPLES])


# ── On the way ───────────────────────────────────────────────────────────────────────────────────


def _stored(views: _Views) -> Difference:
    total, old, new = len(views.originals), views.old.refused, views.new.refused
    reasons = sorted({new[seq] for seq in new.keys() - old.keys()})
    return _by_messages(
        views,
        "stored",
        old.keys() | views.again.refused.keys(),
        set(new),
        lambda found: f"{total - len(found):,} of {total:,}",
        lambda more: (
            f"{len(more):,} of {total:,} messages cannot be stored there ({'; '.join(reasons)})"
        ),
    )


def _field(views: _Views, field: str) -> Difference | None:
    old, new = views.old.changed(field), views.new.changed(field)
    if not old and not new and field not in _ALWAYS:
        return None
    return _by_messages(
        views,
        field,
        old | views.again.changed(field),
        new,
        lambda found: f"changed in {len(found):,}" if found else "as sent",
        lambda more: f"{len(more):,} messages arrive with another {field}",
    )


def _by_messages(
    views: _Views,
    aspect: str,
    old: set[int],
    new: set[int],
    shown: Callable[[set[int]], str],
    sentence: Callable[[set[int]], str],
) -> Difference:
    """Each message has it or not, always: what only NEW has differs."""
    more = new - old
    return Difference(
        aspect=aspect,
        old=shown(old),
        new=shown(new),
        verdict="differs" if more else "better" if old - new else "same",
        sentence=sentence(more) if more else "",
        examples=views.ids(more),
    )


def _order(views: _Views) -> Difference:
    if not any(original.key for original in views.originals):
        return Difference(aspect="order per key", old="no keys", new="no keys", verdict="same")
    return _by_luck(
        views,
        "order per key",
        lambda shown: shown.disordered,
        lambda found: f"{len(found):,} overtook" if found else "kept",
        lambda found: f"{len(found):,} messages overtake one of their own key, or run beside it",
    )


def _lost(views: _Views) -> Difference:
    return _by_luck(
        views,
        "not handled",
        lambda shown: shown.lost,
        lambda found: f"{len(found):,}",
        lambda found: f"{len(found):,} messages were not handled to the end",
    )


def _twice(views: _Views) -> Difference:
    def again(shown: _Shown) -> set[int]:
        return {seq for seq, times in measures.done(shown.events).items() if times > 1}

    return _by_luck(
        views,
        "handled twice",
        again,
        lambda found: f"{len(found):,}",
        lambda found: f"{len(found):,} messages were handled twice",
    )


def _by_luck(
    views: _Views,
    aspect: str,
    see: Callable[[_Shown], set[int]],
    shown: Callable[[set[int]], str],
    sentence: Callable[[set[int]], str],
) -> Difference:
    """Which messages it meets is chance: only whether it happens at all differs."""
    old, again, new = see(views.old), see(views.again), see(views.new)
    worse = bool(new) and not old and not again
    return Difference(
        aspect=aspect,
        old=shown(old or again),
        new=shown(new),
        verdict="differs" if worse else "better" if (old or again) and not new else "same",
        sentence=sentence(new) if worse else "",
        examples=views.ids(new) if worse else (),
    )


# ── In the handler ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Aspect:
    name: str
    see: Callable[[_Shown], Mapping[int, object]]
    total: Callable[[_Shown], str]
    sentence: str


_HANDLER = (
    _Aspect(
        "handler ended",
        lambda shown: shown.ended,
        lambda shown: _counted(shown.ended),
        "for {count} messages the handler ends otherwise ({example})",
    ),
    _Aspect(
        "attempts that failed",
        lambda shown: shown.failures,
        lambda shown: f"{shown.failures.total():,}",
        "{count} messages need other attempts",
    ),
    _Aspect(
        "handler returned",
        lambda shown: shown.returned,
        lambda shown: f"{len(shown.returned):,} values",
        "for {count} messages the handler returns something else",
    ),
    _Aspect(
        "handler sent",
        lambda shown: shown.sends(lambda one: (one.channel, one.key)),
        lambda shown: f"{sum(one.seq is not None for one in shown.run.captured):,}",
        "for {count} messages the handler sends to other channels or keys, or another number",
    ),
    _Aspect(
        "contents sent",
        lambda shown: shown.sends(lambda one: (one.channel, one.key, one.contents)),
        lambda shown: f"{len({one.contents for one in shown.run.captured}):,} different",
        "for {count} messages the handler sends other contents",
    ),
)


def _of_handler(views: _Views, aspect: _Aspect) -> Difference:
    old, again, new = aspect.see(views.old), aspect.see(views.again), aspect.see(views.new)
    reached = views.old.ended.keys() & views.again.ended.keys() & views.new.ended.keys()
    unsteady = {seq for seq in reached if old.get(seq) != again.get(seq)}
    different = {seq for seq in reached - unsteady if old.get(seq) != new.get(seq)}
    example = new.get(min(different), "") if different else ""
    return Difference(
        aspect=aspect.name,
        old=aspect.total(views.old),
        new=aspect.total(views.new),
        verdict="differs" if different else "unclear" if unsteady else "same",
        sentence=aspect.sentence.format(count=f"{len(different):,}", example=example)
        if different
        else "",
        examples=views.ids(different or unsteady),
    )


def _outside(views: _Views) -> Difference:
    old, again, new = views.old.outside, views.again.outside, views.new.outside
    steady = old == again
    return Difference(
        aspect="sent beside the handler",
        old=f"{old.total():,}",
        new=f"{new.total():,}",
        verdict="same" if old == new else "differs" if steady else "unclear",
        sentence="threads of the handler's own send something else" if old != new else "",
    )


def _time(views: _Views) -> Difference:
    return Difference(
        aspect="time in the handler",
        old=_typical(views.old),
        new=_typical(views.new),
        verdict="measured",
    )


def _typical(shown: _Shown) -> str:
    took = sorted(
        span.end_ms - span.start_ms
        for span in measures.spans(shown.events)
        if span.end_ms is not None
    )
    return f"{took[len(took) // 2]:,.1f} ms" if took else "n/a"


def _counted(ended: Mapping[int, str]) -> str:
    done = sum(end == "done" for end in ended.values())
    return f"{done:,} done, {len(ended) - done:,} given up"


def _seq(event: Event) -> int:
    assert event.seq is not None
    return event.seq
