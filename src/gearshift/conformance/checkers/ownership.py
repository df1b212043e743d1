"""Checkers of who has what: messages, partitions, and how many at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gearshift.conformance.history import Kind
from gearshift.conformance.view import View

__all__ = ["over_prefetch", "partition_owners", "two_owners"]


def two_owners(view: View) -> Iterator[str]:
    """Two consumers of a group held one message at once while no member came or went.

    A member that loses its connection may note a message, which it got before, after the fault. Its
    partitions are then given away.
    """
    holder: dict[str | None, str] = {}
    for event in view.events:
        match event.kind:
            case Kind.OPEN | Kind.CLOSE | Kind.FAULT | Kind.SEEK:
                holder.clear()
            case Kind.ASSIGN if view.faulted:
                holder.clear()
            case Kind.SETTLE:
                if holder.get(event.id) == event.who:
                    del holder[event.id]
            case Kind.DELIVER:
                other = holder.get(event.id, event.who)
                if other != event.who and event.id not in view.copies:
                    yield f"{event.id} was given to {event.who} while {other} held it"
                holder[event.id] = event.who


def partition_owners(view: View) -> Iterator[str]:
    """A partition was given to a member before the one that had it was told to let go.

    A member that was cut off or frozen is told later than the next owner, so faults excuse it.
    """
    if view.faulted:
        return
    owner: dict[int, str] = {}
    for event in view.events:
        for partition in event.partitions:
            before = owner.get(partition, event.who)
            if event.kind is Kind.ASSIGN:
                if before != event.who:
                    yield f"partition {partition} was given to {event.who} while {before} had it"
                owner[partition] = event.who
            elif before == event.who:
                owner.pop(partition, None)


def over_prefetch(view: View) -> Iterator[str]:
    """A consumer had more messages in hand than its prefetch allows."""
    limit: dict[str, int] = {}
    hand: Counter[str] = Counter()
    held: set[tuple[str, str | None]] = set()
    for event in view.events:
        entry = (event.who, event.id)
        if event.kind is Kind.OPEN and event.prefetch is not None:
            limit[event.who] = event.prefetch
        elif event.kind is Kind.SETTLE and entry in held:
            held.discard(entry)
            hand[event.who] -= 1
        elif event.kind is Kind.DELIVER and entry not in held:
            held.add(entry)
            hand[event.who] += 1
            count, most = hand[event.who], limit.get(event.who)
            if most is not None and count > most:
                yield f"{event.who} held {count}, its prefetch is {most}"
