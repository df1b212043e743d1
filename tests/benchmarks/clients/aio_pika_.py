"""aio-pika: publishes gathered, messages from its queue iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import aio_pika

from benchmarks.work import HEADERS, IDLE_S, Place, Received, Sample, load, timed_async

GATHERED = 1000


@asynccontextmanager
async def _channel(place: Place) -> AsyncIterator[Any]:
    async with await aio_pika.connect(place.url) as connection:
        yield await connection.channel(publisher_confirms=True)


async def _send_many(place: Place, total: int) -> Sample:
    async with _channel(place) as channel:
        publish = channel.default_exchange.publish

        async def run() -> int:
            source = load(place, total)
            while part := list(islice(source, GATHERED)):
                await asyncio.gather(
                    *(
                        publish(
                            aio_pika.Message(
                                body,
                                headers={"key": key, **HEADERS},
                                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                            ),
                            place.name,
                        )
                        for key, body in part
                    )
                )
            return total

        return await timed_async(run)


async def _receive(place: Place, total: int) -> Sample:
    received = Received(total)
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


def send_many(place: Place, total: int) -> Sample:
    return asyncio.run(_send_many(place, total))


def receive(place: Place, total: int) -> Sample:
    return asyncio.run(_receive(place, total))
