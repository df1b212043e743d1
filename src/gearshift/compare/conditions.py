"""Conditions that a trial waits for: pure functions over the events so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from gearshift.compare import measures
from gearshift.compare.ledger import Event

__all__ = ["count", "done", "is_balanced", "is_ready", "owns_all"]


def count(events: Iterable[Event], kind: str) -> int:
    """How many events of ``kind``."""
    return sum(event.kind == kind for event in events)


def done(events: Iterable[Event], group: str) -> Set[int]:
    """The messages that ``group`` has handled to the end."""
    return measures.done(measures.of_group(events, group)).keys()


def is_ready(events: Iterable[Event], group: str) -> bool:
    """A worker of ``group`` is ready."""
    return any(event.kind == "ready" and event.group == group for event in events)


def is_balanced(events: Iterable[Event], members: int, partitions: int | None) -> bool:
    """Every partition has one owner, and as many workers as possible own one.

    Where nobody knows how many ``partitions`` there are, those that were ever owned are all.
    """
    assigned = [event for event in events if event.kind == "assign"]
    known = partitions or len({number for event in assigned for number in event.partitions})
    owned = {event.who: event.partitions for event in assigned}
    shared = [partition for own in owned.values() for partition in own]
    owners = sum(bool(own) for own in owned.values())
    return 0 < len(shared) == len(set(shared)) == known and owners == min(members, known)


def owns_all(events: Sequence[Event], group: str, partitions: int | None) -> bool:
    """The single worker of ``group`` has all ``partitions``."""
    last = [event for event in events if event.kind == "assign" and event.group == group]
    return bool(last) and len(last[-1].partitions) == partitions
