"""FastStream's KafkaBroker on aiokafka; publishes gathered."""

from __future__ import annotations

import asyncio
from itertools import islice

from faststream.kafka import KafkaBroker

from benchmarks.work import HEADERS, Place, Sample, load, timed_async

GATHERED = 1000


async def _send_many(place: Place, total: int) -> Sample:
    address = place.url.removeprefix("kafka://")
    async with KafkaBroker(address, acks="all", enable_idempotence=True, log_level=50) as broker:

        async def run() -> int:
            source = load(place, total)
            while part := list(islice(source, GATHERED)):
                await asyncio.gather(
                    *(
                        broker.publish(body, place.name, key=key.encode(), headers=dict(HEADERS))
                        for key, body in part
                    )
                )
            return total

        return await timed_async(run)


def send_many(place: Place, total: int) -> Sample:
    return asyncio.run(_send_many(place, total))
