"""Checkers of what came again: only rightly, and saying so."""

from __future__ import annotations

from collections.abc import Iterator

from gearshift.capabilities import Known
from gearshift.conformance.history import Event, Kind, Phase
from gearshift.conformance.view import View

__all__ = ["attempt_count", "redelivered_after_settled", "unflagged_duplicate"]


def redelivered_after_settled(view: View) -> Iterator[str]:
    """What was acked, and the broker told so, came again without any fault.

    On a stream what lies behind a message that its consumer gave up unsettled comes again rightly.
    """
    if view.faulted:
        return
    done: set[str | None] = set()
    held: dict[str | None, Event] = {}
    given_up: list[tuple[int, int]] = []
    for event in view.events:
        match event.kind:
            case Kind.SEEK:
                done.clear()
            case Kind.SETTLE:
                held.pop(event.id, None)
                if event.phase is Phase.OK and event.action != "retry":
                    done.add(event.id)
            case Kind.CLOSE:
                mine = [other for other in held.values() if other.who == event.who]
                given_up += [other.position for other in mine if other.position is not None]
            case Kind.DELIVER:
                held[event.id] = event
                rightly = event.id in view.copies or _is_behind(event.position, given_up)
                if event.id in done and not rightly:
                    yield f"{event.id} was delivered to {event.who} after it was settled"


def unflagged_duplicate(view: View) -> Iterator[str]:
    """A message came a second time and was not flagged as redelivered."""
    if view.replays:
        return
    seen: set[str | None] = set()
    for event in view.deliveries:
        again = event.id in seen
        seen.add(event.id)
        if not again or event.redelivered or event.id in view.copies:
            continue
        if view.faulted and (event.who, event.id) not in view.settled:
            continue  # a member that was cut off hands out what it had, and its word is not taken
        if _must_be_flagged(view.capabilities.redelivered, event, faulted=view.faulted):
            yield f"{event.id} came again with redelivered={event.redelivered}"


def attempt_count(view: View) -> Iterator[str]:
    """The attempt did not begin at one, or did not rise by one with a retry."""
    if view.replays or view.faulted:
        return
    before: dict[str | None, Event] = {}
    actions: dict[str | None, str] = {}
    for event in view.events:
        if event.kind is Kind.SETTLE:
            actions[event.id] = event.action
        elif event.kind is Kind.DELIVER and event.id not in view.copies:
            retried = actions.pop(event.id, None) == "retry"
            if problem := _attempt_problem(view, event, before.get(event.id), retried):
                yield problem
            before[event.id] = event


def _attempt_problem(view: View, event: Event, before: Event | None, retried: bool) -> str | None:
    """``retried`` says how the delivery ``before`` this one ended."""
    exact = view.capabilities.attempt is Known.EXACT
    now = event.attempt or 0
    if before is None:
        return f"{event.id} came first with attempt {now}" if exact and now != 1 else None
    then = before.attempt or 0
    if retried and (exact or before.who == event.who) and now != then + 1:
        return f"{event.id} was retried at attempt {then} and came with {now}"
    if exact and now not in (then, then + 1):
        return f"{event.id} went from attempt {then} to {now}"
    return None


def _is_behind(position: tuple[int, int] | None, places: list[tuple[int, int]]) -> bool:
    return position is not None and any(
        partition == position[0] and offset <= position[1] for partition, offset in places
    )


def _must_be_flagged(declared: Known, event: Event, *, faulted: bool) -> bool:
    """NONE: the backend cannot tell, but must not claim that it is the first."""
    match declared:
        case Known.EXACT:
            return True
        case Known.HINT:
            return not faulted
        case _:
            return event.redelivered is False
