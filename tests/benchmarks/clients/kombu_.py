"""kombu over py-amqp, confirming each publish; acknowledging each message."""

from __future__ import annotations

from typing import Any

import kombu

from benchmarks.work import HEADERS, IDLE_S, Load, Place, Received, Sample, timed


def send_many(place: Place, load: Load) -> Sample:
    options = {"confirm_publish": True}
    with kombu.Connection(place.url, transport_options=options) as connection:
        producer = connection.Producer(serializer=None)

        def run() -> int:
            for key, body in load:
                producer.publish(
                    body,
                    routing_key=place.name,
                    headers={"key": key, **HEADERS},
                    delivery_mode=2,
                    content_type="application/octet-stream",
                    content_encoding="binary",
                )
            return load.total

        return timed(run)


def receive(place: Place, load: Load) -> Sample:
    received = Received(load.total)

    def arrived(body: Any, message: Any) -> None:
        received.add(bytes(message.body))
        message.ack()

    with kombu.Connection(place.url) as connection:
        queue = kombu.Queue(place.name, no_declare=True)
        with connection.Consumer(queue, callbacks=[arrived], prefetch_count=500, no_ack=False):
            while not received.complete:
                connection.drain_events(timeout=IDLE_S)
            return received.sample()
