"""Consumers and a worker without threads of their own: one message at a time, in a fixed order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar, cast

from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.gathering import Gathering
from gearshift._core.consuming.loop import ConsumerLoop
from gearshift._core.consuming.receivers import Receiver
from gearshift._core.consuming.subscription import ConsumerPolicy, Subscription
from gearshift._core.consuming.window import DeliveryWindow
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift.bus import Bus
from gearshift.bus.connections import Connections
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import ChannelSpec, ConsumerSpec, Start
from gearshift.errors import ConnectionFailed, GearshiftError
from gearshift.testing.faults import Faults, FaultyBuffer
from gearshift.worker import dispatch
from gearshift.worker.app import App, Handler
from gearshift.worker.tasks import Settle, TaskRunner
from gearshift.worker.worker import Worker

__all__ = ["HarnessConnections", "Line", "SteppedConnections", "SteppedWorker"]

T = TypeVar("T")

#: On a log one turn receives, one notes who reads, and one lets the messages go.
_TURNS = 3

#: A dead letter is stored by another thread, which answers within microseconds.
_ANSWER_S = 10.0

#: For whoever waits longer for a connection, a thread is begun that says so.
_CONNECT_S = 1.0


class SteppedLoop(ConsumerLoop):
    """Serves a consumer when it is told to, on the thread of whoever tells it."""

    _most_wait_s = 0.0
    _receiver: Receiver | None = None

    def start(self) -> None:
        self._receiver = self._connect_first()

    def step(self) -> None:
        """Tell the broker what is settled, and receive what there is. Does not block."""
        try:
            if self._receiver is None:
                self._receiver = self._connect_again()
                self._connected_again()
            self._take_turn(self._receiver)
        except ConnectionFailed as error:
            self.lose_connection(error)

    def lose_connection(self, error: GearshiftError) -> None:
        """Break the connection: what the broker was not told comes again."""
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            self._break(receiver, error)

    def seek(self, start: Start, timeout_s: float) -> None:
        if self._receiver is not None:
            self._receiver.seek(start)

    def stop(self, timeout_s: float) -> None:
        self._stop.set()
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            self._serve(receiver)


class HarnessConnections(Connections):
    """Connections of a bus that a program opens in a test. ``faults`` are set before the first."""

    buffer_type = FaultyBuffer
    faults: Faults

    def buffer(self, spec: ChannelSpec, create: bool | None, timeout_s: float) -> PublishBuffer:
        made = super().buffer(spec, create, timeout_s)
        cast(FaultyBuffer, made).faults = self.faults
        return made

    def _connect(self, connect: Callable[[], T], channel: str | None, timeout_s: float) -> T:
        return super()._connect(connect, channel, 0.0 if self.faults.is_gone else _CONNECT_S)


class SteppedConnections(HarnessConnections):
    """Those of the bus on which a harness runs apps. Retries have no jitter."""

    loop_type: ClassVar[type[ConsumerLoop]] = SteppedLoop

    def subscribe(
        self,
        spec: ConsumerSpec,
        window: DeliveryWindow,
        policy: ConsumerPolicy,
        create: bool | None,
        timeout_s: float,
    ) -> Subscription:
        policy = replace(policy, retry=replace(policy.retry, random=lambda: 0.5))
        return super().subscribe(spec, window, policy, create, timeout_s)


@dataclass(slots=True, eq=False)
class Line:
    """One handler's messages, one after the other."""

    handler: Handler
    consumer: Consumer[Any]
    handle: Callable[[Sequence[Delivery[Any]]], object]
    handle_async: Callable[[Sequence[Delivery[Any]]], Any]

    @property
    def subscription(self) -> Subscription:
        return self.consumer._subscription

    @property
    def loop(self) -> SteppedLoop:
        return cast(SteppedLoop, self.subscription.loop)

    def next(self) -> list[Delivery[Any]]:
        """The message, or as many of a batch as there are, that may be handled now."""
        batch = Gathering(self.handler.batch or 1)
        found: list[Entry] = []
        turns = 0
        while turns < _TURNS and not batch.is_complete:
            self.loop.step()
            entries = self.subscription.receive(batch.most - batch.taken, 0.0, batch)
            found += entries
            turns = 0 if entries else turns + 1
            if not self.consumer.unsettled:
                break
        return self.consumer._handed_out(found, Delivery)

    def next_due(self, now: float) -> float | None:
        """When something that this consumer holds back may be handled."""
        due = self.subscription.users.window.next_due(now)
        return due if due is None or due > now else None

    def finish(self, faults: Faults) -> None:
        """After a message: its dead letter is stored, and the broker knows of it, or never will."""
        if self.subscription.policy.dead_letters is not None:
            self.subscription.policy.dead_letters.flush(_ANSWER_S)
        if faults.loses_ack(self.handler.channel, self.consumer.group):
            self.loop.lose_connection(ConnectionFailed("the test has lost the acknowledgement"))
        self.loop.step()


class SteppedWorker(Worker):
    """Runs an app's handlers one message at a time, on the thread or event loop of its caller.

    ``raised`` is the error of the handler that ran last, if it failed.
    """

    def __init__(self, app: App, bus: Bus) -> None:
        super().__init__(app, bus)
        self.lines: list[Line] = []
        self.raised: BaseException | None = None
        self._turn = 0

    def waiting(self) -> Iterator[tuple[Line, Sequence[Delivery[Any]]]]:
        """Messages or batches to be handled now, of each handler in turn, until there are none."""
        silent = 0
        while silent < len(self.lines):
            line = self.lines[self._turn % len(self.lines)]
            self._turn += 1
            deliveries = line.next()
            silent = 0 if deliveries else silent + 1
            if deliveries:
                yield line, deliveries

    def _begin_threads(self, handler: Handler, consumer: Consumer[Any], settle: Settle) -> None:
        def handle(deliveries: Sequence[Delivery[Any]]) -> None:
            self._handle(handler, deliveries, settle)

        async def handle_async(deliveries: Sequence[Delivery[Any]]) -> None:
            await asyncio.to_thread(handle, deliveries)

        self.lines.append(Line(handler, consumer, handle, handle_async))

    def _begin_tasks(self, handler: Handler, consumer: Consumer[Any], settle: Settle) -> None:
        tasks = TaskRunner(handler, consumer, self._dispatcher, settle, self._fail)

        def handle(deliveries: Sequence[Delivery[Any]]) -> None:
            self._loop.wait(tasks.handle(deliveries))

        async def handle_on_own_loop(deliveries: Sequence[Delivery[Any]]) -> None:
            await asyncio.wrap_future(self._loop.begin(tasks.handle(deliveries)))

        # What a lifespan yields may be bound to the loop on which it was entered.
        handle_async = handle_on_own_loop if self._app.lifespans else tasks.handle
        self.lines.append(Line(handler, consumer, handle, handle_async))

    def _settle(
        self,
        handler: Handler,
        consumer: Consumer[Any],
        deliveries: Sequence[Delivery[Any]],
        ending: dispatch.Ending,
        took_s: float,
    ) -> None:
        super()._settle(handler, consumer, deliveries, ending, took_s)
        if ending.failed:
            self.raised = ending.error
