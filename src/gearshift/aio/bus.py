"""An open broker, which makes producers and consumers for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack, overload

from gearshift import bus as sync
from gearshift.aio.consumer import Consumer
from gearshift.aio.loops import Opening, opened_in_thread, running_loop
from gearshift.aio.producer import Producer
from gearshift.bus.connections import OPEN_TIMEOUT_S
from gearshift.config import Config
from gearshift.consumer import ConsumerOptions
from gearshift.driver import GroupStatus
from gearshift.message import Fields, Receipt
from gearshift.producer import DEFAULT_TIMEOUT_S
from gearshift.stats import Stats

__all__ = ["Bus", "open_bus"]

T = TypeVar("T")


def open_bus(
    source: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Config | None = None,
    plugins: Sequence[object] = (),
) -> Bus:
    """Open the broker that the configuration selects. This is ``gearshift.aio.open``.

    Arguments and errors are those of ``gearshift.open``. Does not block.
    """
    running_loop()
    return Bus(
        sync.open_bus(source, profile=profile, settings=settings, config=config, plugins=plugins)
    )


class Bus:
    """One open broker. Close it, or use it in an ``async with`` block.

    ``sync`` is the bus below, for threads of the same service: their producers and consumers share
    nothing with those of coroutines but the broker.
    """

    def __init__(self, bus: sync.Bus) -> None:
        self.sync = bus
        self._kept: dict[str, asyncio.Future[Producer]] = {}  # of ``send``, by channel

    def producer(
        self,
        channel: str,
        *,
        requires: Sequence[str] = (),
        create: bool | None = None,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> Opening[Producer]:
        """A producer for ``channel``: await it, or use it as ``async with``.

        Arguments and errors are those of ``gearshift.Bus.producer``.
        """
        call = partial(
            self.sync.producer, channel, requires=requires, create=create, timeout_s=timeout_s
        )

        async def opening() -> Producer:
            return Producer(await opened_in_thread(call), self.sync.hooks.send_async)

        return Opening(opening)

    async def send(
        self,
        channel: str,
        value: object,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        **fields: Unpack[Fields],
    ) -> Receipt:
        """Send one message to ``channel`` by a producer that the bus keeps for it.

        Arguments and errors are those of ``gearshift.Bus.send``.
        """
        opening = self._kept.get(channel)
        if opening is None:
            producer = self.producer(channel, timeout_s=min(timeout_s, OPEN_TIMEOUT_S))
            opening = self._kept[channel] = asyncio.ensure_future(producer)
            opening.add_done_callback(partial(self._keep, channel))
        # Others wait for it too, so it goes on when one of them is cancelled.
        return await (await asyncio.shield(opening)).send(value, timeout_s=timeout_s, **fields)

    def _keep(self, channel: str, opening: asyncio.Future[Producer]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            del self._kept[channel]  # the next one tries again

    @overload
    def consumer(
        self, channel: str, **options: Unpack[ConsumerOptions]
    ) -> Opening[Consumer[Any]]: ...

    @overload
    def consumer(
        self, channel: str, *, value_type: type[T], **options: Unpack[ConsumerOptions]
    ) -> Opening[Consumer[T]]: ...

    def consumer(self, channel: str, **options: Any) -> Opening[Consumer[Any]]:
        """A consumer of ``channel``: await it, or use it as ``async with``.

        Arguments and errors are those of ``gearshift.Bus.consumer``.
        """
        call: Callable[[], Any] = partial(self.sync.consumer, channel, **options)

        async def opening() -> Consumer[Any]:
            return Consumer(await opened_in_thread(call))

        return Opening(opening)

    def stats(self) -> Stats:
        """Counters and the present state. Asks no broker. See ``gearshift.Bus.stats``."""
        return self.sync.stats()

    async def groups(
        self, channel: str, *, timeout_s: float = OPEN_TIMEOUT_S
    ) -> Sequence[GroupStatus]:
        """What waits for which group. See ``gearshift.Bus.groups``."""
        return await asyncio.to_thread(self.sync.groups, channel, timeout_s=timeout_s)

    async def declare(
        self, channel: str, *, create: bool | None = None, timeout_s: float = OPEN_TIMEOUT_S
    ) -> None:
        """Create ``channel`` and its groups. See ``gearshift.Bus.declare``."""
        await asyncio.to_thread(self.sync.declare, channel, create=create, timeout_s=timeout_s)

    async def delete(self, channel: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Remove ``channel`` with all its messages. See ``gearshift.Bus.delete``."""
        await asyncio.to_thread(self.sync.delete, channel, timeout_s=timeout_s)

    async def close(self, timeout_s: float = 30.0) -> None:
        """Close all consumers, then all producers, then the backend. Idempotent."""
        await asyncio.to_thread(self.sync.close, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{repr(self.sync)[1:]}"
