"""Checkers accuse nobody wrongly; that they find what is wrong, the mutants show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gearshift import plugins
from gearshift.conformance.checkers.order import poll_order
from gearshift.conformance.checkers.ownership import two_owners
from gearshift.conformance.history import Event, History, Kind
from gearshift.conformance.view import View
from gearshift.message import Semantics


def view(*given: tuple[str, int]) -> View:
    """Five stored messages of one partition, given to these consumers by their offsets."""
    events = [
        Event(kind=Kind.PUBLISH, who="p", channel="c", id=str(n), position=(0, n)) for n in range(5)
    ]
    events += [
        Event(kind=Kind.DELIVER, who=who, channel="c", group="g", id=str(n), position=(0, n))
        for who, n in given
    ]
    return View(
        history=History(events),
        channel="c",
        group="g",
        semantics=Semantics.STREAM,
        capabilities=plugins.load("memory").capabilities[Semantics.STREAM],
    )


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ([("a", 0), ("a", 3)], True),
        ([("a", 0), ("b", 1), ("b", 2), ("a", 3)], False),  # the partition was there and is back
        ([("a", 0), ("b", 1), ("a", 3)], True),
        ([("a", 0), ("a", 3), ("b", 1), ("b", 2)], True),  # too late
        ([("a", 1), ("a", 2), ("b", 0), ("b", 3)], False),
    ],
)
def test_what_another_was_given_is_not_left_out(
    given: list[tuple[str, int]], left_out: bool
) -> None:
    """Of one consumer's offsets in one partition."""
    assert bool(list(poll_order(view(*given)))) is left_out


@pytest.mark.parametrize("is_given_away", [True, False])
def test_what_is_noted_after_a_lost_connection_is_not_held(is_given_away: bool) -> None:
    """Its partitions tell: as long as nobody else has them it is held, also after a fault."""
    seen = view(("a", 0), ("b", 0))
    noted, given = (event for event in seen.history.events() if event.kind is Kind.DELIVER)
    assigned = Event(kind=Kind.ASSIGN, who="b", channel="c", group="g", partitions=(0,))
    between = [assigned] if is_given_away else []
    history = History([Event(kind=Kind.FAULT, note="connection lost"), noted, *between, given])
    assert bool(list(two_owners(replace(seen, history=history)))) is not is_given_away
