"""FastStream's RabbitBroker, which is aio-pika below; publishes gathered."""

from __future__ import annotations

import asyncio

from faststream.rabbit import RabbitBroker

from benchmarks.work import HEADERS, Load, Place, Sample, gathered


async def _send_many(place: Place, load: Load) -> Sample:
    async with RabbitBroker(place.url, log_level=50) as broker:
        return await gathered(
            load,
            lambda key, body: broker.publish(
                body, place.name, headers={"key": key, **HEADERS}, persist=True
            ),
        )


def send_many(place: Place, load: Load) -> Sample:
    return asyncio.run(_send_many(place, load))
