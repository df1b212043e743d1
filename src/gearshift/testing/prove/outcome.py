"""The outcome of a case: what the handlers' state is, and what they have sent."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gearshift.message import Message

__all__ = ["Outcome", "difference", "is_order_alone", "outcome_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is compared. Copies of a sent message under one id count once.

    ``dead`` are the ids of dead letters.
    """

    state: Any
    sends: Counter[tuple[str, str, str]]
    dead: frozenset[tuple[str, str | None]]


def outcome_of(
    state: Callable[[], Any] | None,
    sends: Iterable[tuple[str, Message]],
    dead: Iterable[tuple[str, str | None, str]],
) -> Outcome:
    """Look at the state, and gather what was sent and what died."""
    seen = None if state is None else copy.deepcopy(state())
    by_id = {(channel, message.id): message for channel, message in sends}
    contents = Counter(
        (channel, repr(message.key), _text(message.body)) for (channel, _), message in by_id.items()
    )
    return Outcome(seen, contents, frozenset((channel, id) for channel, id, _ in dead))


def difference(expected: Outcome, found: Outcome) -> tuple[str, str] | None:
    """The first thing in which they differ, as both texts; None if in nothing."""
    if expected.state != found.state:
        return f"state {expected.state!r}", f"state {found.state!r}"
    if expected.sends != found.sends:
        return _sent(expected.sends), _sent(found.sends)
    if expected.dead != found.dead:
        return _dead(expected), _dead(found)
    return None


def is_order_alone(expected: Outcome, found: Outcome) -> bool:
    """True if the states are the same things in another order, which may not matter."""
    one, other = expected.state, found.state
    if one == other or not (isinstance(one, list | tuple) and isinstance(other, list | tuple)):
        return False
    return sorted(map(repr, one)) == sorted(map(repr, other))


def _sent(sends: Counter[tuple[str, str, str]]) -> str:
    lines = [
        f"{body} to {channel}" + ("" if count == 1 else f", {count} times under different ids")
        for (channel, _, body), count in sorted(sends.items())
    ]
    return "sent " + ("; ".join(lines) or "nothing")


def _dead(outcome: Outcome) -> str:
    ids = ", ".join(sorted(f"{id} of {channel}" for channel, id in outcome.dead))
    return f"dead letters: {ids or 'none'}"


def _text(body: bytes | None) -> str:
    return "no body" if body is None else body.decode("utf-8", "replace")[:200]
