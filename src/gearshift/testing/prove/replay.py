"""A found story on the real broker: the same messages, and workers that do not end their work."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import msgspec

from gearshift.bus import Bus
from gearshift.config import Config
from gearshift.driver import BackendPlugin
from gearshift.errors import UsageError
from gearshift.hooks.registry import Hooks
from gearshift.message import DEFAULT_GROUP, Message
from gearshift.operations.cleanup import delete_channels
from gearshift.testing.prove.befallen import Befallen
from gearshift.testing.prove.interruption import reaching
from gearshift.testing.prove.other_process import OtherProcess, Stop
from gearshift.testing.prove.replay_progress import Wanted
from gearshift.testing.prove.replay_worker import Consumers, ReplayWorker
from gearshift.testing.prove.simulated import Group

__all__ = ["Replay"]

#: Brokers take up to 45 s to miss a killed consumer.
_DEADLINE_S = 120.0

#: Rules whose stories take a second process, as ``overlap`` does where each handles one at a time.
_IN_TWO = ("crash after", "crash inside", "taken twice")


class Replay:
    """Lets what has ``befallen`` a message befall it again, on own channels that are deleted then.

    ``messages`` are each a channel and what is sent to that. ``fresh`` is called in each process,
    and gives the groups as that one runs them, with ``hooks`` around their handlers. ``survivors``
    gives what a process that dies leaves behind; ``resume`` is called with that in the process that
    goes on, and is true if that sees the same state.
    """

    def __init__(
        self,
        config: Config,
        plugin: BackendPlugin,
        groups: Sequence[Group],
        hooks: Hooks,
        messages: Sequence[tuple[str, Message]],
        befallen: Befallen,
        *,
        fresh: Callable[[], Sequence[Group]],
        survivors: Callable[[], Any],
        resume: Callable[[Any], bool],
    ) -> None:
        name = f"gearshift-proof-{uuid.uuid4().hex[:12]}"
        used = sorted({group.handler.channel for group in groups})
        self._channels = {channel: f"{name}-{number}" for number, channel in enumerate(used)}
        self._config = _on_own_channels(config, groups, self._channels)
        self._plugin = plugin
        self._hooks = hooks
        self._messages = messages
        self._rule = befallen.misfortune.rule.name
        self._step = befallen.misfortune.step
        self._takes_two = self._rule in _IN_TWO or befallen.is_in_two_processes
        sent = befallen.entry.sent
        self._wanted = Wanted(
            groups.index(befallen.entry.group),
            sent.message,
            is_sent_by_handler=sent.number >= len(messages),
            is_stored_twice=self._rule == "duplicate",
        )
        self._fresh = fresh
        self._survivors = survivors
        self._resume = resume
        self._worker: ReplayWorker | None = None  # of this process

    def run(self) -> tuple[str, Sequence[tuple[str, Message]]]:
        """Bring it about; the server's product and version, and the dead letters.

        Blocks, for two minutes at most.

        Raises what a bus raises, TimeoutError if a message does not come, and UsageError where the
        misfortune cannot be brought about.
        """
        with ExitStack() as stack:
            other = None
            if self._takes_two:  # forked while no client is open here
                other = stack.enter_context(OtherProcess(self._work_beside))
            bus = stack.enter_context(self._opened())
            stack.callback(delete_channels, bus, *self._channels.values())
            deadline = time.monotonic() + _DEADLINE_S
            worker = self._begin(bus, deadline)
            stack.callback(worker.close)
            for channel, message in self._messages:
                worker.store(channel, message)
            if other is not None:
                self._play_in_two_processes(worker, other, deadline)
            else:
                self._play(worker)
            self._finish(worker)
            return bus.server(), worker.progress.dead

    def store(self, channel: str, message: Message) -> None:
        """What a handler sends. Any thread; blocks."""
        if self._worker is not None:
            self._worker.store(channel, message)

    def _opened(self) -> Bus:
        plugin = self._plugin
        return Bus(self._config, plugin, plugin.connect(self._config.settings_for(plugin)))

    def _begin(self, bus: Bus, deadline: float) -> ReplayWorker:
        self._worker = ReplayWorker(
            bus, self._channels, self._fresh(), self._hooks, self._wanted, deadline
        )
        return self._worker

    def _play(self, worker: ReplayWorker) -> None:
        match self._rule:
            case "lost ack" | "unflagged":
                # What is unsettled, and on a stream all behind it, comes again.
                worker.handle_unacked(self._step).close()
            case "reordered" | "returns late":
                worker.handle_late(is_handled_first=self._rule == "returns late")
            case "overlap":
                worker.handle_with_another(self._step)
            case _:  # it is stored twice
                pass

    def _finish(self, worker: ReplayWorker) -> None:
        """Handle what is left, and what comes again beside it."""
        consumers = Consumers(worker, prefetch=100)
        while worker.progress.left:
            taken = worker.next(consumers)
            is_again = worker.is_wanted(taken) and taken.delivery.redelivered
            if self._rule == "unflagged" and is_again:
                raise UsageError("the broker flags what it gives again")
            worker.handle(taken)
        consumers.close()

    # ── two processes ──

    def _play_in_two_processes(
        self, worker: ReplayWorker, other: OtherProcess, deadline: float
    ) -> None:
        """Let the other one work until it stands still; kill it, or work here and let it end.

        What is handled here is the next message, or the same one again if it is taken twice.
        """
        if self._rule == "overlap" and worker.is_stream(self._wanted.number):
            raise UsageError("it takes two processes, and both messages may be in one partition")
        other.told(deadline)
        other.go_on((worker.progress, deadline))
        self._go_on_from(worker, other.told(deadline))
        if self._rule.startswith("crash"):
            other.kill()
            return
        consumers = Consumers(worker, prefetch=1)
        while True:
            taken = worker.next(consumers)
            worker.handle(taken)
            if self._rule == "overlap" or worker.is_wanted(taken):
                break
        consumers.close()
        other.go_on(self._given(worker))
        self._go_on_from(worker, other.told(deadline))

    def _work_beside(self, stop: Stop) -> Any:
        """Work in the other process: stop in the middle of the message, or when it is handled."""
        progress, deadline = stop(None)
        worker = self._begin(self._opened(), deadline)
        worker.progress = progress
        if self._rule == "crash after":
            worker.handle_unacked(self._step)
            return self._given(worker)
        consumers, taken = worker.reach()
        locked_until = taken.delivery._entry.locked_until
        if self._rule == "taken twice" and (locked_until is None or locked_until > deadline):
            raise UsageError("the broker does not give it to another process within two minutes")

        def stand_still() -> None:
            if taken.delivery.outcome is not None:  # it has settled it itself
                consumers.flush()
                worker.done(taken)
            self._take_over(worker, stop(self._given(worker)))

        with reaching(self._step, stand_still):
            worker.handle(taken)
        consumers.close()
        return self._given(worker)

    def _given(self, worker: ReplayWorker) -> Any:
        return worker.progress, self._survivors()

    def _take_over(self, worker: ReplayWorker, given: Any) -> bool:
        worker.progress, survivors = given
        return self._resume(survivors)

    def _go_on_from(self, worker: ReplayWorker, given: Any) -> None:
        if not self._take_over(worker, given):
            raise UsageError("what state() shows is in the other process's memory, and stays there")


def _on_own_channels(
    config: Config, groups: Sequence[Group], channels: Mapping[str, str]
) -> Config:
    """``config`` with those channels, as they are without what only their broker has."""
    own = {}
    for channel, name in channels.items():
        live = config.channel(channel)
        dead_letter = channels.get(live.dead_letter_name(channel) or "", False)
        names = [one.handler.group for one in groups if one.handler.channel == channel]
        own[name] = msgspec.structs.replace(
            live,
            native={},
            groups=tuple(group or DEFAULT_GROUP for group in names),
            dead_letter=dead_letter,
        )
    return replace(config, channels=own)
