"""A found story on the real broker: the same messages, and workers that do not end their work."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import msgspec

from gearshift.bus import Bus
from gearshift.config import Config
from gearshift.driver import BackendPlugin
from gearshift.errors import UsageError
from gearshift.hooks.registry import Hooks
from gearshift.message import Message, Semantics
from gearshift.operations.cleanup import delete_channels
from gearshift.testing.prove.case_run import Misfortune
from gearshift.testing.prove.interruption import reaching
from gearshift.testing.prove.other_process import OtherProcess, Stop
from gearshift.testing.prove.replay_worker import ReplayWorker
from gearshift.worker.app import Handler

__all__ = ["Replay"]

#: Brokers take up to 45 s to miss a killed consumer.
_DEADLINE_S = 120.0

#: Rules whose stories take a second process, as ``overlap`` does where each handles one at a time.
_IN_TWO = ("crash after", "crash inside", "taken twice")


class Replay:
    """Lets ``misfortune`` befall one of ``messages``, on a channel of its own that is deleted then.

    ``fresh`` is called in each process, and gives ``handler`` as that one runs it, with ``hooks``
    around it. ``survivors`` gives what a process that dies leaves behind; ``resume`` is called with
    that in the process that goes on, and is true if that sees the same state.
    """

    def __init__(
        self,
        config: Config,
        plugin: BackendPlugin,
        handler: Handler,
        hooks: Hooks,
        messages: Sequence[Message],
        misfortune: Misfortune,
        *,
        fresh: Callable[[], Handler],
        survivors: Callable[[], Any],
        resume: Callable[[Any], bool],
    ) -> None:
        self._channel = f"gearshift-proof-{uuid.uuid4().hex[:12]}"
        live = config.channel(handler.channel)
        own = msgspec.structs.replace(live, native={}, groups=(), dead_letter=False)
        self._config = replace(config, channels={self._channel: own})
        self._plugin = plugin
        self._hooks = hooks
        self._messages = messages
        self._rule = misfortune.rule.name
        self._wanted = messages[misfortune.target].id
        self._step = misfortune.step
        self._takes_two = self._rule in _IN_TWO or (
            self._rule == "overlap" and handler.concurrency == 1
        )
        self._fresh = fresh
        self._survivors = survivors
        self._resume = resume

    def run(self) -> tuple[str, Sequence[str | None]]:
        """Bring it about; the server's product and version, and the ids of dead letters.

        Blocks, for two minutes at most.

        Raises what a bus raises, TimeoutError if a message does not come, and UsageError where the
        misfortune cannot be brought about.
        """
        with ExitStack() as stack:
            other = None
            if self._takes_two:  # forked while no client is open here
                other = stack.enter_context(OtherProcess(self._work_beside))
            bus = stack.enter_context(self._opened())
            stack.callback(delete_channels, bus, self._channel)
            deadline = time.monotonic() + _DEADLINE_S
            worker = self._worker(bus, self._send(bus), deadline)
            stack.callback(worker.close)
            if other is not None:
                self._play_in_two_processes(bus, worker, other, deadline)
            else:
                self._play(worker)
            self._finish(worker)
            return bus.server(), worker.dead

    def _opened(self) -> Bus:
        plugin = self._plugin
        return Bus(self._config, plugin, plugin.connect(self._config.settings_for(plugin)))

    def _worker(self, bus: Bus, left: Counter[str | None], deadline: float) -> ReplayWorker:
        return ReplayWorker(bus, self._channel, self._fresh(), self._hooks, left, deadline)

    def _send(self, bus: Bus) -> Counter[str | None]:
        """Send the messages; how often each of them is there, by id."""
        sent = Counter[str | None]()
        with bus.producer(self._channel, create=True) as producer:
            for message in self._messages:
                is_twice = self._rule == "duplicate" and message.id == self._wanted
                for _ in range(2 if is_twice else 1):
                    producer.send(message)
                    sent[message.id] += 1
        return sent

    def _play(self, worker: ReplayWorker) -> None:
        match self._rule:
            case "lost ack" | "unflagged":
                # What is unsettled, and on a stream all behind it, comes again.
                worker.handle_unacked(self._wanted, self._step).close()
            case "reordered" | "returns late":
                is_first = self._rule == "returns late"
                worker.handle_late(self._wanted, is_handled_first=is_first)
            case "overlap":
                worker.handle_with_another(self._wanted, self._step)
            case _:  # it is stored twice
                pass

    def _finish(self, worker: ReplayWorker) -> None:
        """Handle what is left, and what comes again beside it."""
        consumer = worker.consumer()
        while worker.left.total():
            delivery = worker.next(consumer)
            if self._rule == "unflagged" and delivery.id == self._wanted and delivery.redelivered:
                raise UsageError("the broker flags what it gives again")
            worker.handle(delivery)
        consumer.close()

    # ── two processes ──

    def _play_in_two_processes(
        self, bus: Bus, worker: ReplayWorker, other: OtherProcess, deadline: float
    ) -> None:
        """Let the other one work until it stands still; kill it, or work here and let it end.

        What is handled here is the next message, or the same one again if it is taken twice.
        """
        if self._rule == "overlap" and bus.semantics(self._channel) is Semantics.STREAM:
            raise UsageError("it takes two processes, and both messages may be in one partition")
        other.told(deadline)
        other.go_on((worker.left, deadline))
        self._go_on_from(worker, other.told(deadline))
        if self._rule.startswith("crash"):
            other.kill()
            return
        consumer = worker.consumer(prefetch=1)
        while True:
            delivery = worker.next(consumer)
            worker.handle(delivery)
            if self._rule == "overlap" or delivery.id == self._wanted:
                break
        consumer.close()
        other.go_on(self._given(worker))
        self._go_on_from(worker, other.told(deadline))

    def _work_beside(self, stop: Stop) -> Any:
        """Work in the other process: stop in the middle of the message, or when it is handled."""
        left, deadline = stop(None)
        worker = self._worker(self._opened(), left, deadline)
        if self._rule == "crash after":
            worker.handle_unacked(self._wanted, self._step)
            return self._given(worker)
        consumer, delivery = worker.reach(self._wanted)
        locked_until = delivery._entry.locked_until
        if self._rule == "taken twice" and (locked_until is None or locked_until > deadline):
            raise UsageError("the broker does not give it to another process within two minutes")
        with reaching(self._step, lambda: self._take_over(worker, stop(self._given(worker)))):
            worker.handle(delivery)
        consumer.close()
        return self._given(worker)

    def _given(self, worker: ReplayWorker) -> Any:
        return worker.left, worker.dead, self._survivors()

    def _take_over(self, worker: ReplayWorker, given: Any) -> bool:
        worker.left, worker.dead, survivors = given
        return self._resume(survivors)

    def _go_on_from(self, worker: ReplayWorker, given: Any) -> None:
        if not self._take_over(worker, given):
            raise UsageError("what state() shows is in the other process's memory, and stays there")
