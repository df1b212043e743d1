"""Checkers of what was delivered: all that was stored, as it was sent, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from gearshift.conformance.history import Event, Kind, Phase
from gearshift.conformance.view import View
from gearshift.message import Semantics

__all__ = [
    "after_close", "changed", "leak", "lost", "phantom", "position_past_unsettled",
    "retried_not_redelivered", "unsettled_lost",
]  # fmt: skip


def lost(view: View) -> Iterator[str]:
    """A message whose send returned reached nobody in the group."""
    got = {event.id for event in view.deliveries}
    for id, event in view.stored.items():
        if id not in got:
            yield f"{event} was stored and never delivered to {view.group!r}"


def phantom(view: View) -> Iterator[str]:
    """A message came that nobody sent, or whose send had failed for certain."""
    for event in view.deliveries:
        sent = view.published.get(event.id or "")
        if sent is None and not _elsewhere(view, event):
            yield f"{event.id} was delivered and never sent"
        elif sent is not None and sent.phase is Phase.FAIL:
            yield f"{sent} was delivered though its send had failed"


def leak(view: View) -> Iterator[str]:
    """A message came out of another channel than it was sent to."""
    for event in view.deliveries:
        if event.id not in view.published and (other := _elsewhere(view, event)):
            yield f"{event.id} was sent to {other!r} and delivered from {view.channel!r}"


def changed(view: View) -> Iterator[str]:
    """Body, key, headers or properties arrived otherwise than they were sent."""
    for event in view.deliveries:
        sent = view.published.get(event.id or "")
        if sent is not None and sent.digest and sent.digest != event.digest:
            yield f"{sent} came changed, at attempt {event.attempt}"


def retried_not_redelivered(view: View) -> Iterator[str]:
    """A retried message never came again."""
    waiting: dict[str | None, Event] = {}
    for event in view.events:
        if event.kind is Kind.SETTLE and event.action == "retry" and event.phase != Phase.FAIL:
            waiting[event.id] = event
        elif event.kind in (Kind.DELIVER, Kind.SETTLE):
            waiting.pop(event.id, None)
    for id, event in waiting.items():
        yield f"{id} was retried by {event.who} and never came again"


def unsettled_lost(view: View) -> Iterator[str]:
    """On a queue: what a consumer held unsettled when it went away never came again."""
    if view.semantics is Semantics.QUEUE:
        yield from _abandoned(view)


def position_past_unsettled(view: View) -> Iterator[str]:
    """On a stream: the group's position passed a message that nobody had settled."""
    if view.semantics is Semantics.STREAM:
        yield from _abandoned(view)


def after_close(view: View) -> Iterator[str]:
    """A consumer was given a message after its close had returned."""
    closed: set[str] = set()
    for event in view.events:
        if event.kind is Kind.CLOSE:
            closed.add(event.who)
        elif event.kind is Kind.DELIVER and event.who in closed:
            yield f"{event.id} was delivered to {event.who} after it was closed"


def _elsewhere(view: View, event: Event) -> str | None:
    """The other channel that a delivered message was sent to, if any."""
    for other in view.history.events(Kind.PUBLISH):
        if other.id == event.id and other.channel != view.channel:
            return other.channel
    return None


def _abandoned(view: View) -> Iterator[str]:
    """Find messages that were held, not settled, and given to nobody afterwards."""
    held: dict[str | None, Event] = {}
    settled: dict[tuple[str, str | None], Event] = {}
    for event in view.events:
        holder = held.get(event.id)
        if event.kind is Kind.DELIVER:
            held[event.id] = event
        elif event.kind is Kind.SETTLE and event.phase is Phase.FAIL:
            if holder is None and (event.who, event.id) in settled:
                held[event.id] = settled[event.who, event.id]
        elif event.kind is Kind.SETTLE and holder and holder.who == event.who:
            settled[event.who, event.id] = held.pop(event.id)
    done = {id for _, id in view.settled}
    for id, event in held.items():
        if id not in done:
            yield f"{id} was held unsettled by {event.who} and never came again"
