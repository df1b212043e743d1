"""One case: messages, and the misfortunes that befall them while the handlers run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from gearshift._core.consuming.subscription import Subscription
from gearshift.capabilities import Known
from gearshift.delivery import Delivery
from gearshift.errors import AlreadySettled, UsageError
from gearshift.hooks.registry import Hooks
from gearshift.message import Message, Semantics
from gearshift.testing.prove.befallen import Befallen, Misfortune
from gearshift.testing.prove.interruption import Died, Paused, counting_lines, dying_at
from gearshift.testing.prove.module_state import ModuleState
from gearshift.testing.prove.simulated import Group, GroupEntry, Settling, SimulatedBroker
from gearshift.worker import dispatch

__all__ = ["CaseRun", "Line"]

#: Handlers that have run so often in one case send to themselves for ever.
_MOST_RUNS = 500


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a story; ``misfortune`` marks what the broker did."""

    text: str
    misfortune: bool = False


class CaseRun:
    """Runs the handlers on a simulated broker until nothing waits. The thread that made it."""

    def __init__(
        self,
        broker: SimulatedBroker,
        memory: ModuleState,
        state: Callable[[], Any] | None,
        hooks: Hooks,
        runner: asyncio.Runner,
        *,
        counts_lines: bool = False,
    ) -> None:
        self._broker = broker
        self._memory = memory
        self._state = state
        self._dispatcher = dispatch.Dispatcher(hooks, self._wait)
        self._runner = runner
        self._thread = threading.get_ident()
        self._plan: list[Misfortune] = []
        self._seen = 0  # entries that were looked at
        self._runs = 0
        self._rewinds: list[tuple[int, GroupEntry, Misfortune]] = []
        self._counts_lines = counts_lines
        self._lines_run: dict[int, int] = {}  # of the user's by each entry, if they are counted
        self.lines: list[Line] = []
        self.used: list[Befallen] = []

    def run(self, messages: Sequence[tuple[str, Message]], plan: Sequence[Misfortune]) -> None:
        """Store ``messages``, and handle all that comes of them. Raises UsageError."""
        self._plan = list(plan)
        for channel, message in messages:
            self._broker.store(channel, message)
        while True:
            self._look_at_new()
            self._rewind_if_due()
            entry = self._broker.next()
            if entry is not None:
                self._deliver(entry)
            elif not self._rewinds:
                return

    @property
    def entries(self) -> list[tuple[Group, int]]:
        """The group of everything that was given to one, and how many lines it ran, if counted."""
        return [
            (entry.group, self._lines_run.get(number, 0))
            for number, entry in enumerate(self._broker.entries)
        ]

    def _look_at_new(self) -> None:
        while self._seen < len(self._broker.entries):
            entry = self._broker.entries[self._seen]
            self._seen += 1
            if (late := self._take("reordered", entry)) is not None:
                entry.skips = late.step + 1
            if (twice := self._take("duplicate", entry)) is not None:
                self._say(f"{_named(entry)} is stored twice: {twice.rule.happens}")
                self._broker.store_copy(entry)

    # ── one delivery ──

    def _deliver(self, entry: GroupEntry) -> None:
        self._runs += 1
        if self._runs > _MOST_RUNS:
            raise UsageError(
                f"the handlers ran {_MOST_RUNS} times on a few messages, and still something waits",
                hint="does a handler send to its own channel, or retry for ever?",
            )
        first = entry.handed == 0
        if first and (misfortune := self._take("crash inside", entry)):
            self._die_inside(entry, misfortune)
        elif first and (misfortune := self._take("overlap", entry)):
            self._overlap(entry, misfortune)
        elif (
            first and not self._memory.clients and (misfortune := self._take("taken twice", entry))
        ):
            self._take_twice(entry, misfortune)
        else:
            self._handle(entry)
        if entry.settled:
            self._after(entry)

    def _after(self, entry: GroupEntry) -> None:
        for name in ("lost ack", "unflagged", "crash after", "returns late"):
            if (misfortune := self._take(name, entry)) is None:
                continue
            if entry.group.situation.semantics is Semantics.STREAM:
                self._rewinds.append((self._runs + misfortune.step, entry, misfortune))
            else:
                self._say(f"{misfortune.rule.happens}: {_named(entry)} comes again")
                self._forget(misfortune)
                _flag(entry, misfortune.rule.name)
                late = misfortune.step + 1 if name == "returns late" else 0
                self._broker.give_back(entry, skips=late)
            return

    def _rewind_if_due(self) -> None:
        due = [one for one in self._rewinds if one[0] <= self._runs or not self._broker.pending]
        for one in due:
            self._rewinds.remove(one)
            _, entry, misfortune = one
            self._say(f"{misfortune.rule.happens}: the partition goes on at {_named(entry)}")
            self._forget(misfortune)
            for other in self._broker.entries:
                if other.settled and other.follows(entry):
                    _flag(other, misfortune.rule.name)
            self._broker.rewind(entry)

    def _die_inside(self, entry: GroupEntry, misfortune: Misfortune) -> None:
        with dying_at(misfortune.step):
            ending = self._handle(entry)
        if isinstance(ending.error, Died):
            what = "is gone, as it was settled before" if entry.settled else "comes again"
            self._say(f"{misfortune.rule.happens}: {_named(entry)} {what}")
            self._forget(misfortune)
            _flag(entry, misfortune.rule.name)

    def _overlap(self, entry: GroupEntry, misfortune: Misfortune) -> None:
        befallen = self.used[-1]
        partner = befallen.partner = self._broker.partner(entry)
        one_process = not befallen.is_in_two_processes
        if partner is None or (not one_process and self._memory.clients):
            self._handle(entry)
            return
        self._say(f"{misfortune.rule.happens}: {_named(partner)} in the middle of {_named(entry)}")
        are_tasks = entry.group.handler.call.is_async and partner.group.handler.call.is_async
        if one_process and are_tasks:
            self._handle_as_tasks(entry, partner)
        else:
            self._handle_both(entry, partner, misfortune.step, one_process=one_process)

    def _take_twice(self, entry: GroupEntry, misfortune: Misfortune) -> None:
        twin = GroupEntry(
            entry.sent, entry.group, attempt=entry.attempt, redelivered=entry.redelivered
        )
        _flag(twin, misfortune.rule.name)
        self._say(f"{misfortune.rule.happens}: {_named(entry)}")
        self._handle_both(entry, twin, misfortune.step, one_process=False)
        was_settled = twin.settled
        entry.handed += twin.handed
        self._broker.settle(twin)  # the message is the broker's once, whoever settled it
        if was_settled:
            self._broker.settle(entry)

    def _handle_both(
        self, entry: GroupEntry, other: GroupEntry, step: int, *, one_process: bool
    ) -> None:
        """Run ``entry`` up to a line, then ``other``, then the rest of ``entry``."""

        def meanwhile() -> dispatch.Ending:
            if one_process:
                return self._handle(other)
            mine = self._memory.saved()
            self._memory.forget(self._state)
            try:
                return self._handle(other)
            finally:
                self._memory.exchange(mine, self._state)

        Paused(lambda: self._handle(entry), step).meanwhile(meanwhile)

    def _handle_as_tasks(self, *entries: GroupEntry) -> None:
        begun = [self._begin(entry) for entry in entries]

        async def run() -> list[dispatch.Ending]:
            return await asyncio.gather(
                *(
                    self._dispatcher.run_async(body, entry.group.handler.call.function, [delivery])
                    for entry, (delivery, body) in zip(entries, begun, strict=True)
                )
            )

        endings = self._runner.run(run())
        for entry, (delivery, _), ending in zip(entries, begun, endings, strict=True):
            self._end(entry, delivery, ending)

    def _handle(self, entry: GroupEntry) -> dispatch.Ending:
        """Run the handler as a worker does, and settle by how it ended."""
        delivery, body = self._begin(entry)
        run = partial(self._dispatcher.run, body, entry.group.handler.call.function, [delivery])
        if self._counts_lines:
            ending, lines = counting_lines(run)
            self._lines_run[self._broker.entries.index(entry)] = lines
        else:
            ending = run()
        self._end(entry, delivery, ending)
        return ending

    def _begin(self, entry: GroupEntry) -> tuple[Delivery[Any], Callable[[], Any]]:
        settling = Settling(self._broker, entry)
        delivery: Delivery[Any] = Delivery(cast(Subscription, settling), settling.entry())
        entry.handed += 1
        return delivery, partial(entry.group.handler.call, [delivery])

    def _end(self, entry: GroupEntry, delivery: Delivery[Any], ending: dispatch.Ending) -> None:
        if isinstance(ending.error, Died):
            self._lines_of(entry, "dies")
            if not entry.settled:
                self._broker.give_back(entry)
            return
        if delivery.outcome is None:
            try:
                ending.settle(delivery)
            except AlreadySettled:
                return
        error = f" ({type(ending.error).__name__}: {ending.error})" if ending.error else ""
        self._lines_of(entry, f"{_PAST[str(delivery.outcome)]}{error}")

    def _wait(self, awaitable: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await awaitable

        if threading.get_ident() == self._thread:
            return self._runner.run(awaited())
        return asyncio.run(awaited())

    # ── telling ──

    def _take(self, name: str, entry: GroupEntry) -> Misfortune | None:
        """The misfortune of that name that befalls ``entry`` now, for the first time."""
        number = self._broker.entries.index(entry)
        for misfortune in self._plan:
            rule = misfortune.rule
            if (
                rule.name == name
                and misfortune.target == number
                and rule.why(entry.group.situation)
            ):
                self._plan.remove(misfortune)
                self.used.append(Befallen(misfortune, entry))
                return misfortune
        return None

    def _forget(self, misfortune: Misfortune) -> None:
        if misfortune.rule.name in ("crash after", "crash inside"):
            forgotten = self._memory.forget(self._state)
            if forgotten:
                self.lines.append(
                    Line(f"the new process knows nothing of {', '.join(forgotten)}", True)
                )

    def _say(self, text: str) -> None:
        self.lines.append(Line(text, True))

    def _lines_of(self, entry: GroupEntry, how: str) -> None:
        again = ", again" if entry.handed > 1 else ""
        self.lines.append(Line(f"{entry.group.name} gets {_named(entry)}{again}: {how}"))


_PAST = {"ack": "acked", "retry": "fails, will be tried again", "reject": "dead letter"}


def _named(entry: GroupEntry) -> str:
    return str(entry.sent.message.id)


def _flag(entry: GroupEntry, rule: str) -> None:
    """What the next delivery says of earlier ones."""
    level = entry.group.situation.capabilities.redelivered
    if rule in ("lost ack", "returns late") or level is Known.EXACT:
        entry.redelivered = True  # the same consumer has seen it, or the broker knows
    elif level is Known.HINT:
        entry.redelivered = rule != "unflagged"
    if rule == "unflagged" or level is Known.NONE:
        entry.attempt = 1
