"""Cases to try: messages, and the misfortunes that befall them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gearshift.misfortunes import Rule
from gearshift.testing.prove.befallen import Misfortune
from gearshift.testing.prove.simulated import Group
from gearshift.testing.prove.workload import MOST_MESSAGES, Example, Workload

__all__ = ["LEAST_CASES", "Case", "Places", "weight"]

#: Misfortunes that strike at a line of the handler; the others try so many messages.
_AT_LINES = ("crash inside", "overlap", "taken twice")
_FEW = 3

#: Cases for each rule, at least.
LEAST_CASES = 20


@dataclass(frozen=True, slots=True)
class Case:
    """Messages, and what befalls them."""

    examples: Sequence[Example]
    plan: Sequence[Misfortune]


@dataclass(frozen=True, slots=True)
class Places:
    """Where misfortunes may strike, by an undisturbed run of so many ``given`` messages.

    ``entries`` are all that came of them, each with its group and the lines that it ran.
    """

    entries: Sequence[tuple[Group, int]]
    given: int

    def drawn(self, workload: Workload, rules: Sequence[Rule], most: int) -> SearchStrategy[Case]:
        """Cases of some messages and up to ``most`` misfortunes by ``rules``."""

        def planned(case: tuple[list[Example], list[tuple[Rule, int, int]]]) -> Case:
            examples, plan = case
            targets = self._targets(len(examples))
            return Case(
                examples,
                [
                    Misfortune(rule, target % targets, step % self._steps(rule))
                    for rule, target, step in plan
                ],
            )

        # Bounds that depend on what was drawn would be made anew for each case, which takes longer
        # than the case.
        targets = self._targets(MOST_MESSAGES)
        steps = max(self._lines(), _FEW)
        misfortune = st.tuples(
            st.sampled_from(rules), st.integers(0, targets - 1), st.integers(0, steps - 1)
        )
        plans = st.lists(misfortune, min_size=1, max_size=most)
        return st.tuples(workload.drawn, plans).map(planned)

    def all(self, examples: Sequence[Example], rule: Rule, most: int) -> Iterator[Case]:
        """Each place in turn, for all the messages; where there are more places, ``most`` of them.

        But each line of each handler is struck once, however many there are.
        """
        first: dict[tuple[str, int], tuple[int, int]] = {}
        more = []
        for target, (group, lines) in enumerate(self.entries):
            for step in range(lines if rule.name in _AT_LINES else _FEW):
                if first.setdefault((group.handler.name, step), (target, step)) != (target, step):
                    more.append((target, step))
        left = min(len(more), max(0, most - len(first)))
        for target, step in (*first.values(), *random.Random(0).sample(more, left)):
            yield Case(examples, [Misfortune(rule, target, step)])

    def smaller(self, case: Case) -> Iterator[Case]:
        """``case`` without one of its messages, or at an earlier place.

        What handlers send has other numbers then: Hypothesis would have to change two at once.
        """
        if len(case.plan) != 1:
            return
        (misfortune,) = case.plan
        for gone in range(len(case.examples)):
            examples = [one for number, one in enumerate(case.examples) if number != gone]
            for target in range(self._targets(len(examples))):
                yield Case(examples, [replace(misfortune, target=target)])
        for step in range(misfortune.step):
            yield Case(case.examples, [replace(misfortune, step=step)])

    def _targets(self, messages: int) -> int:
        """How many numbers there may be; handlers send messages too, as many for each."""
        return messages * -(-len(self.entries) // self.given)

    def _steps(self, rule: Rule) -> int:
        return self._lines() if rule.name in _AT_LINES else _FEW

    def _lines(self) -> int:
        return max([1, *(lines for _, lines in self.entries)])


def weight(rule: Rule) -> int:
    """Which share of the cases a rule gets: one that has many places to strike gets more."""
    return 4 if rule.name in _AT_LINES else 1
