"""FastStream's RabbitBroker, which is aio-pika below; publishes gathered."""

from __future__ import annotations

import asyncio
from itertools import islice

from faststream.rabbit import RabbitBroker

from benchmarks.work import HEADERS, Place, Sample, load, timed_async

GATHERED = 1000


async def _send_many(place: Place, total: int) -> Sample:
    async with RabbitBroker(place.url, log_level=50) as broker:

        async def run() -> int:
            source = load(place, total)
            while part := list(islice(source, GATHERED)):
                await asyncio.gather(
                    *(
                        broker.publish(
                            body, place.name, headers={"key": key, **HEADERS}, persist=True
                        )
                        for key, body in part
                    )
                )
            return total

        return await timed_async(run)


def send_many(place: Place, total: int) -> Sample:
    return asyncio.run(_send_many(place, total))
