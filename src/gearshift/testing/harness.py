"""A broker in memory for tests, the apps that run on it, and what became of their messages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack, overload

from gearshift import config as configuration
from gearshift import plugins as backends
from gearshift._core.clients import runs_event_loop
from gearshift._core.consuming.dead_letters import revived
from gearshift.bus import Bus
from gearshift.bus.opening import configured, opening_by
from gearshift.capabilities import Durability
from gearshift.config import Config
from gearshift.delivery import Delivery
from gearshift.driver import BackendPlugin
from gearshift.embedded.capabilities import declared
from gearshift.embedded.memory import Backend, Settings, gearshift_backend
from gearshift.errors import ConnectionFailed, UsageError
from gearshift.hooks.registry import load_hooks
from gearshift.message import DEFAULT_GROUP, Fields, Message, Receipt
from gearshift.producer import Producer
from gearshift.testing.clock import Clock
from gearshift.testing.faults import Faults, FaultyBackend
from gearshift.testing.records import DeadLetter, Recorder, Retried, Settled
from gearshift.testing.stepping import HarnessConnections, Line, SteppedConnections, SteppedWorker
from gearshift.worker.app import App

__all__ = ["Harness", "open_harness"]

T = TypeVar("T")

PROFILE = "testing"


def open_harness(
    source: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Config | None = None,
) -> Harness:
    """A broker in memory with the channels of the configuration. This is ``testing.open``.

    Arguments are those of ``gearshift.open``. Of the selected profile only this is used: whether a
    channel that names no semantics is a queue or a stream. It connects nowhere and needs no
    ``${VAR}``. Use it in a ``with`` block: inside, ``gearshift.open`` and ``gearshift.aio.open``
    give buses on this broker, with the channels of their own arguments. Raises ConfigError, and
    PluginError if the profile's backend is not installed.
    """
    environ = configuration.Unset(os.environ)
    return Harness(configured(source, settings, config, profile, environ))


class Harness:
    """One broker in memory, and everything that happens on it.

    It delivers one message at a time, on the thread that calls ``run``: the handlers of an app take
    turns, and each gets its messages in the order of its channel. Lists are in order of happening.
    Made by ``testing.open``.
    """

    def __init__(self, config: Config) -> None:
        self.clock = Clock()
        self._config = config
        self._recorder = Recorder(config)
        self._hooks = load_hooks([self._recorder])
        self._faults = Faults()
        self._memory = Backend(Settings(), self.clock.time, self.clock.monotonic)
        self._backend = FaultyBackend(self._memory, self._faults, self._recorder.stored)
        self._stack = ExitStack()
        self._workers: dict[int, SteppedWorker] = {}
        self._producers: dict[str, Producer] = {}
        #: A bus on this broker.
        self.bus = self._bus(config)
        self._stack.enter_context(opening_by(self._open))

    # ── sending and running ──

    def send(self, channel: str, value: object, **fields: Unpack[Fields]) -> Receipt:
        """Send one message, as ``Producer.send`` does. Also where an event loop runs."""
        if channel not in self._producers:
            self._producers[channel] = self.bus.producer(channel)
        producer = self._producers[channel]
        if runs_event_loop():
            return producer.submit(value, **fields).result()  # it is stored at once, in memory
        return producer.send(value, **fields)

    def run(
        self,
        app: App,
        *,
        for_s: float | None = None,
        raise_on_error: bool = True,
        max_deliveries: int = 10_000,
    ) -> None:
        """Deliver to the app's handlers until all is quiet: nothing waits, and nothing is delayed.

        Delays take no time: when nothing else is to do, the clock moves to the next one. ``for_s``
        bounds that: so many seconds pass, and what is due later stays. An error that a handler
        raises, other than Reject and Retry, is settled as always (retried, say) and then raised
        here, unless ``raise_on_error`` is False. Raises UsageError after ``max_deliveries``:
        handlers that always send more are never quiet.
        """
        if runs_event_loop():
            raise UsageError("run() blocks, and this thread runs an event loop",
                             hint="await harness.run_async(app)")  # fmt: skip
        worker = self._worker(app)
        for line, deliveries in self._deliveries(worker, for_s, max_deliveries):
            worker.raised = None
            line.handle(deliveries)
            self._finish(worker, line, raise_on_error)

    async def run_async(
        self,
        app: App,
        *,
        for_s: float | None = None,
        raise_on_error: bool = True,
        max_deliveries: int = 10_000,
    ) -> None:
        """As ``run``, with async handlers on the running event loop, and plain ones in threads.

        Those of an app with lifespans run on the loop of these, as they always do.
        """
        worker = self._worker(app)
        for line, deliveries in self._deliveries(worker, for_s, max_deliveries):
            worker.raised = None
            await line.handle_async(deliveries)
            self._finish(worker, line, raise_on_error)

    # ── what has happened ──

    @overload
    def sent(self, channel: str) -> list[Any]: ...

    @overload
    def sent(self, channel: str, value_type: type[T]) -> list[T]: ...

    def sent(self, channel: str, value_type: Any = Any) -> list[Any]:
        """Values of the messages that the channel has stored, whoever sent them.

        Plain data, or decoded to ``value_type``; a body that cannot be decoded is its bytes.
        """
        return [self._recorder.value(channel, one, value_type) for one in self.messages(channel)]

    def messages(self, channel: str) -> list[Message]:
        """The same messages with their keys, headers and ids."""
        return list(self._recorder.sent[channel])

    def settled(self, channel: str, group: str | None = None) -> list[Settled]:
        """Deliveries that were settled; of every group, unless one is named."""
        return [one for one in self._recorder.settled if _is_of(one, channel, group)]

    def retried(self, channel: str, group: str | None = None) -> list[Retried]:
        """Attempts that failed and were followed by another one."""
        return [one for one in self._recorder.retried if _is_of(one, channel, group)]

    def dead_letters(self, channel: str, group: str | None = None) -> list[DeadLetter]:
        """Messages of ``channel`` that were moved to its dead letters."""
        return [one for one in self._recorder.dead if _is_of(one, channel, group)]

    # ── failures ──

    @contextmanager
    def broker_gone(self) -> Iterator[None]:
        """Inside the block the broker cannot be reached.

        What is sent raises ConnectionFailed at once, and not after its timeout. Nothing is
        delivered, and what is in hand comes again afterwards.
        """
        self._faults.is_gone = True
        for worker in self._workers.values():
            for line in worker.lines:
                line.loop.lose_connection(ConnectionFailed("the test has taken the broker away"))
        try:
            yield
        finally:
            self._faults.is_gone = False

    def lose_outcomes(self, channel: str, count: int = 1, *, stored: bool = True) -> None:
        """The next ``count`` sends to ``channel`` end as OutcomeUnknown, ``stored`` or not."""
        self._faults.lose_outcomes(channel, count, stored=stored)

    def lose_acks(self, channel: str, group: str | None = None, count: int = 1) -> None:
        """The next ``count`` times that ``group`` settles, its connection breaks before that.

        The message comes again, though its handler has run to its end.
        """
        self._faults.lose_acks(channel, group or DEFAULT_GROUP, count)

    def redeliver(self, settled: Settled) -> None:
        """Store a settled message once more, under its id, for the group that settled it.

        That is what a sender's repetition does after an OutcomeUnknown.
        """
        copy = revived(settled.message, settled.group)
        self.send(settled.channel, copy)
        self._recorder.sent[settled.channel].remove(copy)

    # ── the whole ──

    def close(self) -> None:
        """Close everything that was opened on this broker."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── inside ──

    def _open(
        self,
        source: Any = None,
        *,
        profile: str | None = None,
        settings: Mapping[str, Any] | None = None,
        config: Config | None = None,
        plugins: Sequence[object] = (),
    ) -> Bus:
        environ = configuration.Unset(os.environ)
        return self._bus(configured(source, settings, config, profile, environ), plugins)

    def _bus(
        self,
        config: Config,
        plugins: Sequence[object] = (),
        kind: type[HarnessConnections] = HarnessConnections,
    ) -> Bus:
        def connections(*arguments: Any) -> HarnessConnections:
            made = kind(*arguments)
            made.faults = self._faults
            if kind is SteppedConnections:
                made.clock = self.clock.monotonic
            return made

        hooks = load_hooks((*plugins, self._recorder)) if plugins else self._hooks
        here = configuration.with_profile(config, PROFILE, "memory")
        bus = Bus(here, _plugin((config.over or config).backend), self._backend, hooks, connections)
        self._stack.callback(bus.close)
        return bus

    def _worker(self, app: App) -> SteppedWorker:
        if id(app) not in self._workers:
            bus = self._bus(self._config, app.plugins, SteppedConnections)
            worker = SteppedWorker(app, bus)
            self._stack.callback(worker.stop)
            worker.start()
            self._workers[id(app)] = worker
        return self._workers[id(app)]

    def _deliveries(
        self, worker: SteppedWorker, for_s: float | None, most: int
    ) -> Iterator[tuple[Line, Sequence[Delivery[Any]]]]:
        """Each message or batch that is to be handled; lets time pass when there is none."""
        until = None if for_s is None else self.clock.monotonic() + for_s
        given = 0
        while True:
            for work in worker.waiting():
                given += len(work[1])
                if given > most:
                    raise UsageError(
                        f"not quiet after {most} deliveries; the last was {work[1][-1]!r}",
                        hint="a handler sends to its own channel; raise max_deliveries, or give "
                        "for_s",
                    )
                yield work
            due = self._next_due(worker)
            if due is None or (until is not None and due > until):
                break
            self.clock.advance(due - self.clock.monotonic())
        if until is not None:
            self.clock.advance(max(0.0, until - self.clock.monotonic()))

    def _next_due(self, worker: SteppedWorker) -> float | None:
        now = self.clock.monotonic()
        times = [self._memory.next_due(), *(line.next_due(now) for line in worker.lines)]
        return min((due for due in times if due is not None), default=None)

    def _finish(self, worker: SteppedWorker, line: Line, raise_on_error: bool) -> None:
        line.finish(self._faults)
        if worker.raised is not None and raise_on_error:
            raise worker.raised


@cache  # loading a backend reads what is installed, which takes longer than most tests
def _plugin(backend: str) -> BackendPlugin:
    """The memory backend with the default semantics of ``backend``.

    Durability is not asked for: nothing dies here, and the profile is checked by ``explain``.
    """
    return replace(
        gearshift_backend(),
        default_semantics=backends.load(backend).default_semantics,
        capabilities=declared(Durability.BROKER_RESTART),
    )


def _is_of(one: Settled | Retried | DeadLetter, channel: str, group: str | None) -> bool:
    return one.channel == channel and group in (None, one.group)
