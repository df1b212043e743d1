"""Cases to try: messages, and the misfortunes that befall them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gearshift.misfortunes import Rule
from gearshift.testing.prove.case_run import Misfortune
from gearshift.testing.prove.workload import Example

__all__ = ["LEAST_CASES", "Case", "cases_of", "weight"]

#: Misfortunes that need a line of the handler try so many; the others so many messages.
_STEPS = {"crash inside": 15, "overlap": 15, "taken twice": 15}
_FEW = 3

#: Cases for each rule, at least.
LEAST_CASES = 20


@dataclass(frozen=True, slots=True)
class Case:
    """Messages, and what befalls them."""

    examples: Sequence[Example]
    plan: Sequence[Misfortune]


def cases_of(
    drawn: SearchStrategy[list[Example]], rules: Sequence[Rule], most: int, groups: int
) -> SearchStrategy[Case]:
    """Cases of some messages and up to ``most`` misfortunes by ``rules``."""

    def planned(case: tuple[list[Example], list[tuple[Rule, int, int]]]) -> Case:
        examples, plan = case
        # With several groups there are also messages that handlers send.
        targets = len(examples) * (1 if groups == 1 else 3)
        return Case(
            examples,
            [
                Misfortune(rule, target % targets, step % _STEPS.get(rule.name, _FEW))
                for rule, target, step in plan
            ],
        )

    # Bounds that depend on what was drawn would be made anew for each case, which takes longer
    # than the case.
    misfortune = st.tuples(st.sampled_from(rules), st.integers(0, 14), st.integers(0, 14))
    plans = st.lists(misfortune, min_size=1, max_size=most)
    return st.tuples(drawn, plans).map(planned)


def weight(rule: Rule) -> int:
    """Which share of the cases a rule gets: one that has many places to strike gets more."""
    return 4 if rule.name in _STEPS else 1
