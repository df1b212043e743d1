"""The outcome of a case: what the handlers' state is, and what they have sent."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from gearshift.message import Message

__all__ = ["Outcome", "difference", "is_order_alone", "outcome_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is compared. Copies of a message under one id count once.

    ``dead`` are dead letters: of the case's own messages by their ids, of others by their bodies,
    as their ids may be of chance.
    """

    state: Any
    sends: Counter[tuple[str, str, str]]
    dead: Counter[tuple[str, str]]


def outcome_of(
    state: Callable[[], Any] | None,
    sends: Iterable[tuple[str, Message]] = (),
    dead: Iterable[tuple[str, Message]] = (),
    own: Collection[str | None] = (),
) -> Outcome:
    """Look at the state, and gather what was sent and what died; ``own`` are the case's ids."""
    seen = None if state is None else copy.deepcopy(state())
    contents = Counter(
        (channel, repr(message.key), _text(message.body)) for channel, message in _by_id(sends)
    )
    letters = Counter(
        (channel, str(message.id) if message.id in own else _text(message.body))
        for channel, message in _by_id(dead)
    )
    return Outcome(seen, contents, letters)


def _by_id(messages: Iterable[tuple[str, Message]]) -> Iterable[tuple[str, Message]]:
    return {(channel, one.id): (channel, one) for channel, one in messages}.values()


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
    letters = sorted(f"{what} of {channel}" for channel, what in outcome.dead.elements())
    return f"dead letters: {', '.join(letters) or 'none'}"


def _text(body: bytes | None) -> str:
    return "no body" if body is None else body.decode("utf-8", "replace")[:200]
