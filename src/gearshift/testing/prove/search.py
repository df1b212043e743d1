"""The search for the smallest case that breaks handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from gearshift.misfortunes import Rule
from gearshift.testing.prove.cases import Case, Places
from gearshift.testing.prove.outcome import Outcome, difference
from gearshift.testing.prove.runner import CaseRunner, Undecided
from gearshift.testing.prove.workload import Example, Workload

__all__ = ["BY_CHANCE", "Search"]

BY_CHANCE = "the same case ends now so, now otherwise: the handlers depend on chance"


class _Breaks(Exception):
    """A case has another outcome than it should."""


class Search:
    """Runs cases of ``workload``; ``cases`` counts them. One thread."""

    def __init__(self, runner: CaseRunner, workload: Workload, seed: int) -> None:
        self._runner = runner
        self._workload = workload
        self._seed = seed
        self._outcomes: dict[tuple[int, ...], tuple[Sequence[Example], Outcome]] = {}
        self._places = self._found_places()
        self.cases = 0

    def smallest(self, rules: Sequence[Rule], most: int, cases: int) -> Case | None:
        """The smallest case that breaks the handlers, of up to ``most`` misfortunes by ``rules``.

        Raises UsageError, and Undecided.
        """
        examples = self._workload.given
        is_systematic = bool(examples) and len(rules) == 1
        drawn = cases // 2 if is_systematic else cases
        found = self._drawn(self._places.drawn(self._workload, rules, most), drawn, self.breaks)
        if found is None and is_systematic:
            every = self._places.all(examples, rules[0], cases - drawn)
            found = next(filter(self.breaks, every), None)
        while found is not None:
            smaller = next(filter(self.breaks, self._places.smaller(found)), None)
            if smaller is None:
                return found
            found = smaller
        return None

    def breaks(self, case: Case) -> bool:
        """True if the case ends otherwise than without its misfortunes."""
        self.cases += 1
        _, case_run, outcome = self._runner.run(case)
        if not case_run.used:
            return False
        expected = self.expected(case.examples)
        if difference(expected, outcome) is None:
            return False
        again = difference(expected, self._undisturbed(case.examples))
        if again is not None:
            raise Undecided(
                f"two undisturbed runs differ: {again[0]}, then {again[1]} "
                "(a clock or a random id in the state?)"
            )
        return True

    def expected(self, examples: Sequence[Example]) -> Outcome:
        """The outcome without misfortunes."""
        if not self._workload.given:  # each case has messages of its own
            return self._undisturbed(examples)
        key = tuple(map(id, examples))
        if key not in self._outcomes:
            self._outcomes[key] = (examples, self._undisturbed(examples))
        return self._outcomes[key][1]

    def _undisturbed(self, examples: Sequence[Example]) -> Outcome:
        return self._runner.run(Case(examples, ()))[2]

    def _found_places(self) -> Places:
        """Where there is something to strike, as far as a few cases show."""
        found = Places((), 1)

        def look(case: Case) -> bool:
            nonlocal found
            entries = self._runner.run(case, counts_lines=True)[1].entries
            if len(entries) > len(found.entries):
                found = Places(entries, len(case.examples))
            return False

        given = self._workload.given
        drawn = st.just(list(given)) if given else self._workload.drawn
        self._drawn(drawn.map(lambda examples: Case(examples, ())), 10, look)
        return found

    def _drawn(
        self, drawn: SearchStrategy[Case], cases: int, breaks: Callable[[Case], bool]
    ) -> Case | None:
        """The smallest that ``breaks``, of so many that Hypothesis draws."""
        found: Case | None = None

        @seeded(self._seed)
        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )
        @given(drawn)
        def attempt(case: Case) -> None:
            nonlocal found
            if breaks(case):
                found = case
                raise _Breaks

        try:
            attempt()
        except _Breaks:
            return found
        except Flaky:
            raise Undecided(BY_CHANCE) from None
        return None
