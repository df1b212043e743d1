"""RabbitMQ with pika's BlockingConnection: one message, one confirm."""

from __future__ import annotations

from typing import Any

import pika

from benchmarks.work import HEADERS, Place, Sample, Stopwatch, load, timed


def _channel(place: Place) -> tuple[Any, Any]:
    connection = pika.BlockingConnection(pika.URLParameters(place.url))
    return connection, connection.channel()


def send(place: Place, total: int) -> Sample:
    connection, channel = _channel(place)
    channel.confirm_delivery()

    def run() -> int:
        for key, body in load(place, total):
            properties = pika.BasicProperties(headers={"key": key, **HEADERS}, delivery_mode=2)
            channel.basic_publish("", place.name, body, properties, mandatory=True)
        return total

    sample = timed(run)
    connection.close()
    return sample


def end_to_end(place: Place, total: int) -> Sample:
    watch = Stopwatch(total)
    sender, out = _channel(place)
    out.confirm_delivery()
    properties = pika.BasicProperties(headers=dict(HEADERS), delivery_mode=2)

    def serve() -> None:
        receiver, channel = _channel(place)
        channel.basic_qos(prefetch_count=100)
        for method, _, body in channel.consume(place.name, inactivity_timeout=20):
            watch.arrived(body)
            channel.basic_ack(method.delivery_tag)
            if watch.ended:
                break
        receiver.close()

    sample = watch.run(
        lambda body: out.basic_publish("", place.name, body, properties, mandatory=True), serve
    )
    sender.close()
    return sample
