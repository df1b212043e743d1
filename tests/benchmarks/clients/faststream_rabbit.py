"""FastStream's RabbitBroker, which is aio-pika below; publishes gathered."""

from __future__ import annotations

import asyncio

from faststream.rabbit import RabbitBroker

from benchmarks.work import HEADERS, Place, Sample, gathered


async def _send_many(place: Place, total: int) -> Sample:
    async with RabbitBroker(place.url, log_level=50) as broker:
        return await gathered(
            place,
            total,
            lambda key, body: broker.publish(
                body, place.name, headers={"key": key, **HEADERS}, persist=True
            ),
        )


def send_many(place: Place, total: int) -> Sample:
    return asyncio.run(_send_many(place, total))
