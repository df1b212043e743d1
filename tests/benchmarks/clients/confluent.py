"""Kafka by hand: confluent-kafka with a delivery callback for each message."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from confluent_kafka import Consumer, Producer

from benchmarks.work import (
    HEADERS,
    IDLE_S,
    Place,
    Received,
    Sample,
    Stopwatch,
    in_threads,
    load,
    timed,
)


def _producer(place: Place, **settings: Any) -> Producer:
    return Producer(
        {
            "bootstrap.servers": place.url.removeprefix("kafka://"),
            "acks": "all",
            "enable.idempotence": True,
            **settings,
        }
    )


def _consumer(place: Place) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": place.url.removeprefix("kafka://"),
            "group.id": place.name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([place.name])
    return consumer


def _headers() -> list[tuple[str, str | bytes | None]]:
    """Those of every client, and an id, as Gearshift gives one to each message."""
    return [*HEADERS.items(), ("message-id", uuid.uuid4().hex)]


def send_many(place: Place, total: int) -> Sample:
    """With key, headers, id, timestamp and callback."""
    producer = _producer(place)
    stored = 0

    def reported(error: Any, message: Any) -> None:
        nonlocal stored
        stored += error is None

    def run() -> int:
        for number, (key, body) in enumerate(load(place, total)):
            producer.produce(
                place.name,
                body,
                key,
                headers=_headers(),
                timestamp=time.time_ns() // 1_000_000,
                on_delivery=reported,
            )
            if number % 500 == 0:
                producer.poll(0)
        producer.flush(60)
        return stored

    return timed(run)


def send(place: Place, total: int) -> Sample:
    """produce and flush, without linger."""
    producer = _producer(place, **{"linger.ms": 0})

    def run() -> int:
        for key, body in load(place, total):
            producer.produce(place.name, body, key, headers=_headers())
            producer.flush()
        return total

    return timed(run)


def send_from_threads(place: Place, total: int) -> Sample:
    """Each thread waits for its own report; one more serves the reports."""
    producer = _producer(place, **{"linger.ms": 0})
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            producer.poll(0.1)

    def one(key: str, body: bytes) -> bool:
        reported = threading.Event()
        producer.produce(
            place.name, body, key, headers=_headers(), on_delivery=lambda *_: reported.set()
        )
        return reported.wait(IDLE_S)

    server = threading.Thread(target=serve)
    server.start()
    sample = in_threads(one, place, total)
    ended.set()
    server.join()
    return sample


def receive(place: Place, total: int) -> Sample:
    """Batches of 500 of which only the values are read, one commit a batch."""
    consumer = _consumer(place)
    received = Received(total)
    deadline = time.monotonic() + 60
    while not received.complete and time.monotonic() < deadline:
        messages = consumer.consume(500, 1.0)
        if messages:
            received.add(*(message.value() for message in messages if message.error() is None))
            consumer.commit(asynchronous=True)
    consumer.commit(asynchronous=False)
    sample = received.sample()
    consumer.close()
    return sample


def end_to_end(place: Place, total: int) -> Sample:
    """A poll loop; each message committed by the batch that is there."""
    watch = Stopwatch(total)
    producer = _producer(place, **{"linger.ms": 0})

    def serve() -> None:
        consumer = _consumer(place)
        while not watch.ended:
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                watch.arrived(message.value())
                consumer.commit(message, asynchronous=True)
        consumer.close()

    def one(body: bytes) -> None:
        producer.produce(place.name, body, headers=_headers())
        producer.flush()

    return watch.run(one, serve)
