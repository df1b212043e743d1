"""aiokafka: ``send`` and its futures; ``getmany`` with a commit a batch."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.work import HEADERS, IDLE_S, Load, Place, Received, Sample, timed_async


def _address(place: Place) -> str:
    return place.url.removeprefix("kafka://")


async def _send_many(place: Place, load: Load) -> Sample:
    headers = [(name, value.encode()) for name, value in HEADERS.items()]
    async with AIOKafkaProducer(
        bootstrap_servers=_address(place), acks="all", enable_idempotence=True
    ) as producer:

        async def run() -> int:
            reports = [
                await producer.send(place.name, body, key.encode(), headers=headers)
                for key, body in load
            ]
            return len(await asyncio.gather(*reports))

        return await timed_async(run)


async def _receive(place: Place, load: Load) -> Sample:
    received = Received(load.total)
    async with AIOKafkaConsumer(
        place.name,
        bootstrap_servers=_address(place),
        group_id=place.name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    ) as consumer:
        while not received.complete:
            batches = await consumer.getmany(
                timeout_ms=int(IDLE_S * 1000), max_records=received.wanted
            )
            if not batches:
                break
            received.add(*(one.value for batch in batches.values() for one in batch))
            await consumer.commit()
        return received.sample()


def send_many(place: Place, load: Load) -> Sample:
    return asyncio.run(_send_many(place, load))


def receive(place: Place, load: Load) -> Sample:
    return asyncio.run(_receive(place, load))
