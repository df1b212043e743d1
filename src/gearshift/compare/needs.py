"""Needs of a service, by name, and how far each column meets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gearshift.compare.findings import Finding, Observation
from gearshift.compare.judges import JUDGES
from gearshift.compare.judges.judge import Need
from gearshift.compare.ledger import Scenario
from gearshift.compare.words import listed
from gearshift.errors import UsageError

__all__ = ["DECIDING", "NEEDS", "Answer", "Known", "Ranked", "parse", "rank", "verdict"]

#: Scenarios in the order of what most often decides between a queue and a stream.
DECIDING: tuple[Scenario, ...] = (
    "ordering", "replay", "scaling", "fan_out", "poison", "crash", "slow",
)  # fmt: skip


class Known(NamedTuple):
    """A need and the scenario that shows whether it is met."""

    scenario: Scenario
    need: Need


#: Every need by name, in the order of what most often decides.
NEEDS: Mapping[str, Known] = {
    need.name: Known(scenario, need) for scenario in DECIDING for need in JUDGES[scenario].needs
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A need and what was seen of it on a column. ``met`` None: not run, or not clear."""

    scenario: Scenario
    need: Need
    met: bool | None
    shown: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A column with its answers. ``costs``: what it does not do that another column does."""

    column: str
    answers: tuple[Answer, ...]
    costs: tuple[Answer, ...]

    @property
    def met(self) -> int:
        """The number of needs that it meets."""
        return sum(answer.met is True for answer in self.answers)


def parse(text: str) -> tuple[str, ...]:
    """The names in "order, replay", each once. Raises UsageError for one that is not known."""
    names = [name for part in text.split(",") if (name := part.strip().lower().replace(" ", "-"))]
    for name in names:
        if name not in NEEDS:
            raise UsageError(f"unknown need {name!r}", hint=f"known are {_known()}")
    return tuple(dict.fromkeys(names))


def rank(findings: Sequence[Finding], names: Sequence[str]) -> tuple[Ranked, ...]:
    """Every column, the one that meets most of ``names`` first; of equals, the earlier names."""
    seen = {
        (finding.scenario, observation.column): observation
        for finding in findings
        for observation in finding.observations
    }
    columns = dict.fromkeys(column for _, column in seen)
    others = [name for name in NEEDS if name not in names]
    ranked = []
    for column in columns:
        answers = tuple(_answer(name, column, seen) for name in names)
        costs = tuple(
            answer
            for name in others
            if (answer := _answer(name, column, seen)).met is False
            and any(_answer(name, other, seen).met for other in columns)
        )
        ranked.append(Ranked(column, answers, costs))
    return tuple(
        sorted(
            ranked, key=lambda one: (-one.met, [answer.met is not True for answer in one.answers])
        )
    )


def verdict(ranked: Sequence[Ranked]) -> str:
    """The first of the ranking in a sentence."""
    best = ranked[0]
    first = [one.column for one in ranked if one.answers[:] and _same(one, best)]
    met = [answer.need.name for answer in best.answers if answer.met]
    unmet = [answer.need.name for answer in best.answers if not answer.met]
    if not met:
        return f"No column meets {listed(unmet, 'or')}."
    take = f"Take {listed(first, 'or')}: {'it meets' if len(first) == 1 else 'each meets'} "
    if not unmet:
        return f"{take}{listed(met)}."
    return f"{take}{listed(met)}, not {listed(unmet, 'or')}; no column meets all."


def _same(one: Ranked, other: Ranked) -> bool:
    return [a.met for a in one.answers] == [a.met for a in other.answers]


def _answer(name: str, column: str, seen: Mapping[tuple[Scenario, str], Observation]) -> Answer:
    scenario, need = NEEDS[name]
    found = seen.get((scenario, column))
    if found is None or found.mark == "unclear":
        return Answer(scenario, need, None, "not run" if found is None else found.shown)
    shown = f"{found.shown}. {found.caution}" if found.caution else found.shown
    return Answer(scenario, need, found.outcome in need.outcomes, shown)


def _known() -> str:
    return ", ".join(NEEDS)
