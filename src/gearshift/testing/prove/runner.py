"""Running cases: each begins anew, and ends in an outcome that can be compared with others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gearshift.bus import Bus
from gearshift.config import Config
from gearshift.driver import BackendPlugin
from gearshift.message import Message
from gearshift.testing.prove.befallen import Befallen
from gearshift.testing.prove.buses import SimulatedBuses
from gearshift.testing.prove.case_run import CaseRun
from gearshift.testing.prove.cases import Case
from gearshift.testing.prove.module_state import ModuleState
from gearshift.testing.prove.outcome import Outcome, outcome_of
from gearshift.testing.prove.replay import Replay
from gearshift.testing.prove.simulated import Group, SimulatedBroker
from gearshift.testing.prove.workload import Example
from gearshift.worker.app import Handler

__all__ = ["CaseRunner", "Undecided"]


class Undecided(Exception):
    """Why nothing can be said."""


class CaseRunner:
    """Runs one case after the other, on the thread that calls it.

    ``handlers`` gives those of the groups as in a process that has just started.
    ``has_acked`` is true once a handler has got a message and ended well, ``has_moved`` once the
    state was another one after a case than before it.
    """

    def __init__(
        self,
        bus: Bus,
        buses: SimulatedBuses,
        groups: Sequence[Group],
        handlers: Callable[[], Sequence[Handler]],
        memory: ModuleState,
        state: Callable[[], Any] | None,
        reset: Callable[[], object] | None,
    ) -> None:
        self._bus = bus
        self._simulated = buses
        self._groups = groups
        self._handlers = handlers
        self._memory = memory
        self._state = state
        self._reset = reset
        self._loop = asyncio.Runner()
        self._producers: dict[str, Any] = {}
        self._begun: Any = None  # the state at the beginning of each case
        self._has_begun = False
        self.has_acked = False
        self.has_moved = False

    def run(
        self, case: Case, *, counts_lines: bool = False
    ) -> tuple[SimulatedBroker, CaseRun, Outcome]:
        """Run ``case`` on a simulated broker. Raises UsageError, and Undecided."""
        begun = self._begin()
        broker = SimulatedBroker(self._groups)
        messages = self._messages(case.examples)
        sends: list[tuple[str, Message]] = []

        def store(channel: str, message: Message) -> None:
            sends.append((channel, message))
            broker.store(channel, message)

        self._simulated.store = store
        case_run = CaseRun(
            broker,
            self._memory,
            self._state,
            self._bus.hooks,
            self._loop,
            counts_lines=counts_lines,
        )
        case_run.run(messages, case.plan)
        outcome = outcome_of(self._state, sends, broker.dead, _ids(messages))
        self.has_acked = self.has_acked or len(broker.dead) < len(broker.entries)
        self.has_moved = self.has_moved or outcome.state != begun
        return broker, case_run, outcome

    def replay(
        self, case: Case, befallen: Befallen, broker: tuple[Config, BackendPlugin]
    ) -> tuple[str, Outcome]:
        """Run ``case`` on a real broker: what server it was, and what came of it.

        Raises what Replay does.
        """
        self._begin()
        messages = self._messages(case.examples)
        sends: list[tuple[str, Message]] = []

        def shown() -> Any:
            return None if self._state is None else self._state()

        def resume(left: tuple[dict[int, Any], list[tuple[str, Message]], Any]) -> bool:
            variables, sends[:], state = left
            self._memory.restore(variables)
            return bool(shown() == state)

        replay = Replay(
            *broker,
            self._groups,
            self._bus.hooks,
            messages,
            befallen,
            fresh=lambda: [
                replace(group, handler=handler)
                for group, handler in zip(self._groups, self._handlers(), strict=True)
            ],
            survivors=lambda: (self._memory.outliving(self._state), sends, shown()),
            resume=resume,
        )

        def store(channel: str, message: Message) -> None:
            sends.append((channel, message))
            replay.store(channel, message)

        self._simulated.store = store
        server, dead = replay.run()
        return server, outcome_of(self._state, sends, dead, _ids(messages))

    def close(self) -> None:
        """Leave everything as it was before the first case."""
        self._forget_all()
        self._loop.close()

    def _begin(self) -> Any:
        """Begin anew; returns the state, which must be that of the first time."""
        self._forget_all()
        begun = outcome_of(self._state).state
        if self._has_begun and begun != self._begun:
            raise Undecided(
                f"state() is {begun!r} at the beginning of a case and was {self._begun!r} before: "
                "write reset() beside it, which begins anew"
            )
        self._begun, self._has_begun = begun, True
        return begun

    def _forget_all(self) -> None:
        self._memory.begin()
        if self._reset is not None:
            self._reset()

    def _messages(self, examples: Sequence[Example]) -> list[tuple[str, Message]]:
        return [self._message(number, one) for number, one in enumerate(examples, 1)]

    def _message(self, number: int, one: Example) -> tuple[str, Message]:
        channel = str(one.channel)
        if channel not in self._producers:
            self._producers[channel] = self._bus.producer(channel, create=True)
        producer = self._producers[channel]
        return channel, producer.message(
            one.value, key=one.key, headers=one.headers, id=f"m{number}", timestamp_ms=number
        )


def _ids(messages: Sequence[tuple[str, Message]]) -> set[str | None]:
    return {message.id for _, message in messages}
