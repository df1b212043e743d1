"""FastStream's KafkaBroker on aiokafka; publishes gathered."""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.kafka import KafkaBroker

from benchmarks.work import HEADERS, Place, Sample, gathered


async def send_over(kind: type[Any], place: Place, total: int) -> Sample:
    """Send through a broker of FastStream's of that ``kind``."""
    address = place.url.removeprefix("kafka://")
    async with kind(address, acks="all", enable_idempotence=True, log_level=50) as broker:
        return await gathered(
            place,
            total,
            lambda key, body: broker.publish(
                body, place.name, key=key.encode(), headers=dict(HEADERS)
            ),
        )


def send_many(place: Place, total: int) -> Sample:
    return asyncio.run(send_over(KafkaBroker, place, total))
