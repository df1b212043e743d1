"""Kafka by hand: confluent-kafka with a delivery callback per message."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from load import HEADERS, Measured, Watch, load

PARTITIONS = 4


def publish(bootstrap: str, topic: str, total: int) -> Measured:
    """acks=all, idempotent, with key, headers and callback."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    stored = 0

    def reported(error: Any, message: Any) -> None:
        nonlocal stored
        stored += error is None

    started = time.perf_counter()
    headers: list[tuple[str, str | bytes | None]] = list(HEADERS.items())
    for number, (key, body) in enumerate(load(total)):
        producer.produce(topic, body, key, headers=headers, on_delivery=reported)
        if number % 500 == 0:
            producer.poll(0)
    producer.flush(60)
    return Measured(stored / (time.perf_counter() - started), total - stored)


def consume(bootstrap: str, topic: str, total: int) -> Measured:
    """Batches of 500, one commit per batch."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    watch = Watch(total)
    deadline = time.monotonic() + 60
    while not watch.complete and time.monotonic() < deadline:
        messages = [each for each in consumer.consume(500, 1.0) if each.error() is None]
        if messages:
            watch.saw([message.value() or b"" for message in messages])
            consumer.commit(asynchronous=True)
    consumer.commit(asynchronous=False)
    measured = watch.stop()
    consumer.close()
    return measured


def delete(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result()
