"""confluent-kafka's AIOProducer, which refuses headers."""

from __future__ import annotations

import asyncio

from confluent_kafka.aio import AIOProducer

from benchmarks.work import Load, Place, Sample, timed_async


async def _send_many(place: Place, load: Load) -> Sample:
    producer = AIOProducer(
        {
            "bootstrap.servers": place.url.removeprefix("kafka://"),
            "acks": "all",
            "enable.idempotence": True,
        }
    )

    async def run() -> int:
        reports = [await producer.produce(place.name, body, key) for key, body in load]
        await producer.flush()
        done = await asyncio.gather(*reports)
        return sum(message.error() is None for message in done)

    try:
        return await timed_async(run)
    finally:
        await producer.close()


def send_many(place: Place, load: Load) -> Sample:
    return asyncio.run(_send_many(place, load))
