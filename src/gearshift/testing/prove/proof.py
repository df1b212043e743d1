"""Proving handlers: cases are drawn, run with and without misfortunes, compared and shrunk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from gearshift.bus.connections import OPEN_TIMEOUT_S
from gearshift.config import Config
from gearshift.driver import BackendPlugin
from gearshift.errors import GearshiftError
from gearshift.message import Key
from gearshift.misfortunes import RULES, Rule, shares_memory
from gearshift.testing.prove.befallen import Befallen
from gearshift.testing.prove.buses import SimulatedBuses
from gearshift.testing.prove.cases import LEAST_CASES, Case, weight
from gearshift.testing.prove.module_state import ModuleState
from gearshift.testing.prove.outcome import Outcome, difference, is_order_alone
from gearshift.testing.prove.runner import CaseRunner, Undecided
from gearshift.testing.prove.search import BY_CHANCE, Search
from gearshift.testing.prove.simulated import Group, Sent, group_of
from gearshift.testing.prove.story import Proof, Story, StoryMessage, Verdict
from gearshift.testing.prove.workload import Workload, workload_of
from gearshift.worker.app import App, Handler
from gearshift.worker.dependencies import Provided
from gearshift.worker.event_loop import EventLoop

__all__ = ["Prover"]

_SORTED = "return state() sorted if its order does not matter; else "


class Prover:
    """Proves one app on one profile. Handlers run on the thread that calls ``prove``."""

    def __init__(
        self,
        app: App,
        buses: SimulatedBuses,
        *,
        state: Callable[[], Any] | None,
        reset: Callable[[], object] | None,
        processes: int,
        seed: int,
    ) -> None:
        self._app = app
        self._state = state
        self._seed = seed
        self._buses = buses
        self._bus = buses.bus(app.plugins)
        self._opened = ExitStack()
        self._groups = [group_of(self._bus, handler, processes) for handler in self._handlers()]
        functions = [handler.call.function for handler in app.handlers]
        self._memory = ModuleState([*functions, *([state] if state else [])])
        self._runner = CaseRunner(
            self._bus, buses, self._groups, self._handlers, self._memory, state, reset
        )
        #: Where found stories are run once more; None is nowhere.
        self.broker: tuple[Config, BackendPlugin] | None = None
        self.rules = [
            rule for rule in RULES if any(self._is_tried(rule, group) for group in self._groups)
        ]

    def _handlers(self) -> list[Handler]:
        """The app's handlers, given what they ask for as in a process that has just started."""
        loop = EventLoop()
        provided = Provided(self._buses.bus(self._app.plugins), loop)
        self._opened.callback(loop.close)
        self._opened.callback(provided.close)
        needs = [need for handler in self._app.handlers for need in handler.call.needs]
        provided.enter(self._app.lifespans, needs, OPEN_TIMEOUT_S)
        return [
            replace(handler, call=handler.call.given_by(provided)) for handler in self._app.handlers
        ]

    def prove(
        self,
        examples: Iterable[Any] | None,
        key: Callable[[Any], Key | None] | None,
        cases: int,
    ) -> Proof:
        """Look for the smallest story of each misfortune. Raises UsageError."""
        workload = workload_of(self._app, examples, key)
        log = logging.getLogger("gearshift")
        disabled, log.disabled = log.disabled, True  # handlers fail on purpose
        try:
            return self._proved(workload, cases)
        finally:
            log.disabled = disabled
            self._runner.close()
            self._opened.close()

    def _proved(self, workload: Workload, cases: int) -> Proof:
        stories: list[Story] = []
        tried: list[str] = []
        why, search = None, None
        try:
            search = Search(self._runner, workload, self._seed)
            share = cases / (1 + sum(weight(rule) for rule in self.rules))
            for rule in self.rules:
                if rule.after not in {story.rule for story in stories}:
                    tried.append(rule.name)
                    stories += self._stories(search, [rule], 1, share * weight(rule))
            if not stories:
                stories += self._stories(search, self.rules, 3, share)
            why = self._doubt()
        except Undecided as undecided:
            why = str(undecided)
        verdict = Verdict.SAFE
        if stories:
            verdict, why = Verdict.NOT_SAFE, None
        elif why is not None:
            verdict = Verdict.CANNOT_BE_SAID
        return Proof(
            verdict=verdict,
            profile=self._bus.profile,
            backend=self._bus.backend,
            cases=search.cases if search else 0,
            rules=tried,
            stories=stories,
            why=why,
            note=self._not_tried(),
        )

    def _is_tried(self, rule: Rule, group: Group) -> bool:
        if rule.why(group.situation) is None:
            return False
        if rule.name not in ("overlap", "taken twice") or not self._memory.clients:
            return True
        # Two processes would not share these clients, so only what one process does is tried.
        in_one = shares_memory(group.situation) or len(self._groups) > 1
        return rule.name == "overlap" and in_one

    def _not_tried(self) -> str | None:
        missing = [
            rule.name
            for rule in RULES
            if rule not in self.rules and any(rule.why(one.situation) for one in self._groups)
        ]
        if not missing:
            return None
        return (
            f"not tried: {', '.join(missing)}, because two processes would not share "
            f"{', '.join(self._memory.clients)} (open it in the handler, or in a threading.local)"
        )

    def _doubt(self) -> str | None:
        """Why it must not be called safe although nothing broke."""
        if not self._runner.has_acked:
            return "no handler got a message and ended well, even undisturbed"
        if any(handler.call.is_batch for handler in self._app.handlers):
            return "a handler takes batches, which were not made up: it got one message at a time"
        if self._app.lifespans:
            return "the app has a lifespan, which was not entered anew when a process died"
        if self._state is None:
            return "the handlers' state is not visible: write state() beside them, or give --state"
        if not self._runner.has_moved:
            return "state() was the same before and after every message: it shows nothing of them"
        return None

    # ── searching ──

    def _stories(
        self, search: Search, rules: Sequence[Rule], most: int, cases: float
    ) -> list[Story]:
        case = search.smallest(rules, most, max(LEAST_CASES, int(cases)))
        if case is None:
            return []
        broker, case_run, outcome = self._runner.run(case)
        expected = search.expected(case.examples)
        different = difference(expected, outcome)
        if different is None:
            raise Undecided(BY_CHANCE)
        befallen = case_run.used[0]
        rule, entry = befallen.misfortune.rule, befallen.entry
        return [
            Story(
                rule=rule.name,
                capability=rule.capability,
                because=str(rule.why(entry.group.situation)),
                messages=[_told(sent, case) for sent in broker.stored[: len(case.examples)]],
                lines=[
                    f"{'  !' if line.misfortune else '   '} {line.text}" for line in case_run.lines
                ],
                expected=different[0],
                found=different[1],
                help=_SORTED + rule.help if is_order_alone(expected, outcome) else rule.help,
                on_broker=self._on_broker(case, case_run.used, expected),
            )
        ]

    def _on_broker(self, case: Case, used: Sequence[Befallen], expected: Outcome) -> str | None:
        """What comes of it on the real broker."""
        if self.broker is None:
            return None
        if len(used) > 1:
            return "not tried: it takes several misfortunes"
        try:
            server, outcome = self._runner.replay(case, used[0], self.broker)
        except (GearshiftError, TimeoutError) as error:
            return f"not tried: {error}"
        different = difference(expected, outcome)
        if different is None:
            return f"not seen on {server}: {expected.state!r}, as undisturbed"
        return f"seen on {server}: {different[1]}"


def _told(sent: Sent, case: Case) -> StoryMessage:
    return StoryMessage(
        id=str(sent.message.id),
        channel=sent.channel,
        key=sent.message.key,
        value=case.examples[sent.number].value,
    )
