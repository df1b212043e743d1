"""The receiving side of a channel, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Generic, Self, TypeVar

from gearshift import consumer as sync
from gearshift._core.clients import refuse_to_receive_none
from gearshift._core.consuming.entry import Entry
from gearshift._core.consuming.gathering import Gathering
from gearshift.aio.delivery import Delivery
from gearshift.aio.loops import Waker, running_loop, weakly
from gearshift.consumer import StartName
from gearshift.driver import Start
from gearshift.errors import Closed

__all__ = ["Consumer"]

T = TypeVar("T")


class Consumer(Generic[T]):
    """Receives from one channel as a member of one group. Made by ``Bus.consumer``.

    Its methods are called on the event loop on which it was made. As many tasks as you like may
    wait in ``receive``. A task that is cancelled there has taken nothing.
    """

    _delivery: ClassVar[Any] = Delivery

    def __init__(self, consumer: sync.Consumer[T]) -> None:
        self._consumer = consumer
        self._subscription = consumer._subscription
        self._users = consumer._users
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop = running_loop()
        self._waker = Waker(self._loop)
        self._is_woken = False
        self._listener = weakly(self._on_change)
        self._users.changed.listen(self._listener)

    @property
    def channel(self) -> str:
        """The name of the channel."""
        return self._consumer.channel

    @property
    def group(self) -> str:
        """The name of the group."""
        return self._consumer.group

    @property
    def closed(self) -> bool:
        """True once ``close`` was called."""
        return self._consumer.closed

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions of a stream that this consumer owns now; empty on a queue."""
        return self._consumer.partitions

    @property
    def unsettled(self) -> int:
        """Messages that this consumer has received and not settled, handed out or not."""
        return self._consumer.unsettled

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until connected, assigned and positioned. Raises DeadlineExceeded."""
        await asyncio.to_thread(self._consumer.ready, timeout_s)

    async def receive(
        self, max_messages: int = 1, *, timeout_s: float | None = None
    ) -> list[Delivery[T]]:
        """Up to ``max_messages`` deliveries as soon as there is one.

        An empty list if nothing came for ``timeout_s`` seconds (None: waits until something comes).
        Raises Closed, and what has ended the consumer for good.
        """
        refuse_to_receive_none(max_messages)
        return await self._receive(max_messages, timeout_s)

    async def _receive(
        self, max_messages: int, timeout_s: float | None, batch: Gathering | None = None
    ) -> list[Delivery[T]]:
        self._consumer._check_process()
        deadline = None if timeout_s is None else self._users.clock() + timeout_s
        while True:
            entries = await self._next(max_messages, deadline, batch)
            live, ended = self._subscription.sort(entries)
            if batch is not None:
                batch.drop(len(entries) - len(live))
            # Not awaited: a task that is cancelled there would lose ``live``.
            for entry, reason in ended:
                self._loop.run_in_executor(None, self._subscription.bury, entry, reason)
            if live or not entries:
                break
        return self._consumer._handed_out(live, self._delivery)

    async def iterate(self, *, idle_timeout_s: float | None = None) -> AsyncIterator[Delivery[T]]:
        """Deliveries one by one; ends when none came for ``idle_timeout_s`` or on ``close``."""
        while True:
            try:
                deliveries = await self.receive(timeout_s=idle_timeout_s)
            except Closed:
                return
            if not deliveries:
                return
            yield deliveries[0]

    def __aiter__(self) -> AsyncIterator[Delivery[T]]:
        """As ``iterate()``: deliveries one by one until ``close``."""
        return self.iterate()

    async def seek(self, start: Start | StartName, *, timeout_s: float = 30.0) -> None:
        """Continue at ``start``. Streams only. See ``gearshift.Consumer.seek``."""
        await asyncio.to_thread(self._consumer.seek, start, timeout_s=timeout_s)

    async def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until the driver knows of everything settled so far. Raises DeadlineExceeded."""
        await asyncio.to_thread(self._consumer.flush, timeout_s)

    def stop_receiving(self) -> None:
        """Hand out nothing more: ``receive`` raises Closed, iteration ends, in every task.

        What is in hand can still be settled. The first half of an orderly ``close``.
        """
        self._consumer.stop_receiving()

    async def close(self, timeout_s: float = 30.0) -> list[str | None]:
        """Stop receiving, tell the broker what is settled, and close. Idempotent.

        Returns the ids of deliveries in hand that are not settled: they come again.
        """
        unsettled = await asyncio.to_thread(self._consumer.close, timeout_s)
        self._users.changed.unlisten(self._listener)
        return unsettled

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{repr(self._consumer)[1:]}"

    # ── inside ──

    async def _next(
        self, max_messages: int, deadline: float | None, batch: Gathering | None
    ) -> list[Entry]:
        """As UserSide.next. Entries are taken and returned without an await between."""
        users, user = self._users, batch or self._user()
        entries = users.first(max_messages, user)
        while not entries:
            with users.changed:
                entries, nap_s = users.look(max_messages, user, deadline)
                if entries or nap_s is None:
                    break
                waiting = self._loop.create_future()
                self._waiting.add(waiting)
                users.window.isolation.asking += 1
            timer = self._loop.call_later(nap_s, _wake, waiting)
            try:
                await waiting
            finally:
                timer.cancel()
                self._waiting.discard(waiting)
                with users.changed:
                    users.window.isolation.asking -= 1
        return entries

    def _user(self) -> int:
        """Who asks: not the task, as each call may be in one of its own (``asyncio.wait_for``)."""
        return id(self)

    def _on_change(self) -> None:
        """Wake the tasks that wait. Any thread, with the window's lock held."""
        if self._waiting and not self._is_woken:
            self._is_woken = True
            self._waker.call(self._wake_all)

    def _wake_all(self) -> None:
        self._is_woken = False
        for waiting in self._waiting:
            _wake(waiting)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
