"""The runs of a rehearsal, each counted by itself: old, old again, and new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gearshift.compare import measures
from gearshift.compare.ledger import Event
from gearshift.compare.measures import seq_of
from gearshift.compare.rehearsal.document import Original, VariantRun

__all__ = ["Side", "Sides"]

_EXAMPLES = 3


@dataclass
class Side:
    """One run, counted once."""

    originals: Sequence[Original]
    run: VariantRun

    @property
    def events(self) -> Sequence[Event]:
        return self.run.trial.events

    @cached_property
    def refused(self) -> dict[int, str]:
        return {seq_of(event): event.what for event in self.events if event.kind == "refused"}

    @cached_property
    def first(self) -> dict[int, Event]:
        return {seq_of(event): event for event in measures.first_deliveries(self.events)}

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
        """The end of each message: "done", or "given up: " and why."""
        ends, why = {}, dict[int, str]()
        for event in self.events:
            if event.kind == "failed":
                why[seq_of(event)] = event.what
            elif event.kind == "done":
                ends[seq_of(event)] = "done"
            elif event.kind == "settle" and event.what == "reject":
                ends[seq_of(event)] = f"given up: {why.get(seq_of(event), 'rejected')}"
        return ends

    @cached_property
    def lost(self) -> set[int]:
        return measures.confirmed(self.events) - self.ended.keys()

    @cached_property
    def failures(self) -> Counter[int]:
        return Counter(seq_of(event) for event in self.events if event.kind == "failed")

    @cached_property
    def returned(self) -> dict[int, str]:
        return {
            seq_of(event): event.digests["returned"]
            for event in self.events
            if event.kind == "done"
        }

    def sends(self, what: Callable[..., Hashable]) -> dict[int, list[Hashable]]:
        """The messages that were sent while each one was handled, sorted."""
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
class Sides:
    old: Side
    again: Side
    new: Side

    def ids(self, found: set[int]) -> tuple[str, ...]:
        return tuple(self.old.originals[seq].id for seq in sorted(found)[:_EXAMPLES])
