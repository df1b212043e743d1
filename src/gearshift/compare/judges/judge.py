"""The parts of every judge of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gearshift.compare.findings import Chart, Expectation, Mark
from gearshift.compare.ledger import Column, Meta, TrialRecord

__all__ = ["Judge", "Need", "Outcome", "Seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The outcome of one repetition; None if it cannot be judged, and then ``why`` not."""

    outcome: str | None
    why: str = ""
    numbers: Sequence[tuple[str, str, float | None]] = ()  # name, unit, value
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """A need of a user: its name for ``--need``, what it is, and the outcomes that meet it."""

    name: str
    text: str
    outcomes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A behaviour that a scenario can show, in words.

    ``mark`` answers the judge's ``subject``. ``shown`` and ``sentence`` are templates: ``{name}``
    becomes a number's median, ``{name:unit}`` the same with its unit. ``does`` is a phrase about
    several columns ("both queues ..."), ``again`` the same for the second ones that are told of.
    """

    mark: Mark
    shown: str
    sentence: str
    does: str
    again: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The pure functions and words that judge a scenario.

    ``outcomes`` go from the least that one can have to the most; the least of all repetitions
    counts. ``subject`` is what the matrix asks for. ``elsewhere`` warns, by semantics, of an
    embedded column that does better than real brokers do.
    """

    title: str
    subject: str
    question: str
    handler: str
    outcomes: Mapping[str, Outcome]
    see: Callable[[Sequence[TrialRecord]], Seen]
    expect: Callable[[Column, Meta], Expectation]
    needs: tuple[Need, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def rank(self, outcome: str) -> int:
        """The place of ``outcome`` among all, the least first."""
        return list(self.outcomes).index(outcome)
