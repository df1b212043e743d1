"""The parts of every judge of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gearshift.compare.findings import Chart, Expectation, Number
from gearshift.compare.ledger import Column, Meta, TrialRecord

__all__ = ["Judge", "Need", "Numbers", "Seen"]

#: Number by name.
Numbers = Mapping[str, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The outcome of one repetition; None if it cannot be judged, and then ``why`` not."""

    outcome: str | None
    why: str = ""
    numbers: Sequence[tuple[str, str, float | None]] = ()  # name, unit, value
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """A need of a user, and the outcomes that meet it."""

    text: str
    outcomes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The pure functions and words that judge a scenario.

    ``ranks`` are the outcomes from the least that one can have to the most. The least of all
    repetitions counts. ``shown`` and ``sentence`` are templates per outcome, filled with the
    numbers' medians.
    """

    title: str
    question: str
    handler: str
    ranks: tuple[str, ...]
    shown: Mapping[str, str]
    sentence: Mapping[str, str]
    see: Callable[[Sequence[TrialRecord]], Seen]
    expect: Callable[[Column, Meta], Expectation]
    needs: tuple[Need, ...] = field(default=())

    def least(self, outcomes: Sequence[str]) -> str:
        """The lowest-ranked of ``outcomes``."""
        return min(outcomes, key=self.ranks.index)
