"""RabbitMQ by hand: pika's SelectConnection, pipelined as far as it goes."""

from __future__ import annotations

import time
from functools import partial
from itertools import takewhile
from typing import Any

import pika

from benchmarks.work import HEADERS, IDLE_S, Place, Received, Sample, load

WINDOW = 2000  # unconfirmed
PREFETCH = 500


class _Client:
    """A connection with one AMQP channel; ``begin`` is called when it is there."""

    def __init__(self, place: Place, total: int) -> None:
        self.place = place
        self.total = total
        self.connection = pika.SelectConnection(
            pika.URLParameters(place.url), on_open_callback=self._on_connection
        )
        self.channel: Any = None
        self.sample = Sample(0)

    def run(self) -> Sample:
        self.connection.ioloop.start()
        return self.sample

    def end(self) -> None:
        self.connection.add_on_close_callback(lambda *_: self.connection.ioloop.stop())
        self.connection.close()

    def begin(self) -> None:
        raise NotImplementedError

    def _on_connection(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self.channel = channel
        self.begin()


class _Publisher(_Client):
    def begin(self) -> None:
        self.source = load(self.place, self.total)
        self.sent = self.refused = 0
        self.open: dict[int, None] = {}
        self.channel.add_on_return_callback(self._on_return)
        self.channel.confirm_delivery(self._on_confirm, callback=lambda _: self._start())

    def _start(self) -> None:
        self.started = time.perf_counter()
        self._fill()

    def _fill(self) -> None:
        publish, queue = self.channel.basic_publish, self.place.name
        while len(self.open) < WINDOW and self.sent < self.total:
            key, body = next(self.source)
            properties = pika.BasicProperties(headers={"key": key, **HEADERS}, delivery_mode=2)
            self.sent += 1
            self.open[self.sent] = None
            publish("", queue, body, properties, mandatory=True)

    def _on_return(self, *_: Any) -> None:
        self.refused += 1

    def _on_confirm(self, frame: Any) -> None:
        tag, known = frame.method.delivery_tag, self.open
        if frame.method.NAME != "Basic.Ack":
            self.refused += 1
        if frame.method.multiple:
            for open_tag in list(takewhile(lambda each: each <= tag, known)):
                del known[open_tag]
        else:
            del known[tag]
        self._fill()
        if not known:
            seconds = time.perf_counter() - self.started
            self.sample = Sample(self.total - self.refused, self.total / seconds)
            self.end()


class _Consumer(_Client):
    def begin(self) -> None:
        self.received = Received(self.total)
        self.channel.basic_qos(prefetch_count=PREFETCH)
        self.channel.basic_consume(self.place.name, self._on_message)
        self._look_up(seen=-1)

    def _look_up(self, seen: int) -> None:
        """End, with what there is, once a whole IDLE_S has brought nothing new."""
        if len(self.received.seen) == seen:
            self._finish()
        elif not self.received.complete:
            following = partial(self._look_up, len(self.received.seen))
            self.connection.ioloop.call_later(IDLE_S, following)

    def _finish(self) -> None:
        self.sample = self.received.sample()
        self.end()

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.received.add(body)
        channel.basic_ack(method.delivery_tag)
        if self.received.complete:
            self._finish()


def send_many(place: Place, total: int) -> Sample:
    """Persistent, mandatory, confirmed, at most WINDOW unconfirmed."""
    return _Publisher(place, total).run()


def receive(place: Place, total: int) -> Sample:
    """Each acknowledged by itself."""
    return _Consumer(place, total).run()
