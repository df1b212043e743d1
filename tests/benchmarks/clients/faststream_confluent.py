"""FastStream's KafkaBroker on confluent-kafka; publishes gathered."""

from __future__ import annotations

import asyncio

from faststream.confluent import KafkaBroker

from benchmarks.clients.faststream_kafka import send_over
from benchmarks.work import Load, Place, Sample


def send_many(place: Place, load: Load) -> Sample:
    return asyncio.run(send_over(KafkaBroker, place, load))
