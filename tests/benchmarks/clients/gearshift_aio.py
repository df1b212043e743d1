"""Gearshift's coroutines: ``gearshift.aio`` on every broker."""

from __future__ import annotations

import asyncio

import gearshift
from benchmarks.clients.gearshift_ import settings_of
from benchmarks.work import HEADERS, IDLE_S, Load, Place, Received, Sample, timed_async
from gearshift import aio


async def _send_many(place: Place, load: Load) -> Sample:
    async with aio.open(settings=settings_of(place)) as bus, bus.producer(place.name) as producer:

        async def run() -> int:
            messages = (producer.message(body, key=key, headers=HEADERS) for key, body in load)
            results = await producer.send_many(messages, raise_on_error=False)
            return sum(isinstance(result, gearshift.Receipt) for result in results)

        return await timed_async(run)


async def _receive(place: Place, load: Load) -> Sample:
    received = Received(load.total)
    async with (
        aio.open(settings=settings_of(place)) as bus,
        bus.consumer(place.name, prefetch=500) as consumer,
    ):
        while not received.complete:
            deliveries = await consumer.receive(received.wanted, timeout_s=IDLE_S)
            if not deliveries:
                break
            received.add(*(delivery.body for delivery in deliveries))
            for delivery in deliveries:
                await delivery.ack()
        await consumer.flush()
        return received.sample()


def send_many(place: Place, load: Load) -> Sample:
    return asyncio.run(_send_many(place, load))


def receive(place: Place, load: Load) -> Sample:
    return asyncio.run(_receive(place, load))
