"""aio-pika: publishes gathered, messages from its queue iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika

from benchmarks.work import HEADERS, IDLE_S, Load, Place, Received, Sample, gathered


@asynccontextmanager
async def _channel(place: Place) -> AsyncIterator[Any]:
    async with await aio_pika.connect(place.url) as connection:
        yield await connection.channel(publisher_confirms=True)


async def _send_many(place: Place, load: Load) -> Sample:
    async with _channel(place) as channel:

        def publish(key: str, body: bytes) -> Awaitable[Any]:
            message = aio_pika.Message(
                body,
                headers={"key": key, **HEADERS},
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            return channel.default_exchange.publish(message, place.name)

        return await gathered(load, publish)


async def _receive(place: Place, load: Load) -> Sample:
    received = Received(load.total)
    async with _channel(place) as channel:
        await channel.set_qos(prefetch_count=500)
        queue = await channel.get_queue(place.name)
        async with queue.iterator(timeout=IDLE_S) as messages:
            async for message in messages:
                received.add(message.body)
                await message.ack()
                if received.complete:
                    break
        return received.sample()


def send_many(place: Place, load: Load) -> Sample:
    return asyncio.run(_send_many(place, load))


def receive(place: Place, load: Load) -> Sample:
    return asyncio.run(_receive(place, load))
