"""FastStream's KafkaBroker on aiokafka; publishes gathered."""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.kafka import KafkaBroker

from benchmarks.work import HEADERS, Load, Place, Sample, gathered


async def send_over(kind: type[Any], place: Place, load: Load) -> Sample:
    """Send through a broker of FastStream's of that ``kind``."""
    address = place.url.removeprefix("kafka://")
    async with kind(address, acks="all", enable_idempotence=True, log_level=50) as broker:
        return await gathered(
            load,
            lambda key, body: broker.publish(
                body, place.name, key=key.encode(), headers=dict(HEADERS)
            ),
        )


def send_many(place: Place, load: Load) -> Sample:
    return asyncio.run(send_over(KafkaBroker, place, load))
