"""RabbitMQ by hand: pika's SelectConnection, pipelined as far as it goes."""

from __future__ import annotations

import time
from functools import partial
from itertools import takewhile
from typing import Any

import pika
from load import HEADERS, Measured, Watch, load

WINDOW = 2000
PREFETCH = 500
ACK_EVERY = 100
#: Nothing came for so long: the rest is lost.
IDLE_S = 20.0
QUORUM = {"x-queue-type": "quorum"}


class _Client:
    """A connection with one AMQP channel and one quorum queue; ``begin`` when they are there."""

    def __init__(self, url: str, queue: str, total: int) -> None:
        self.queue = queue
        self.total = total
        self.connection = pika.SelectConnection(
            pika.URLParameters(url), on_open_callback=self._on_connection
        )
        self.channel: Any = None

    def run(self) -> None:
        self.connection.ioloop.start()

    def end(self) -> None:
        self.connection.add_on_close_callback(lambda *_: self.connection.ioloop.stop())
        self.connection.close()

    def begin(self) -> None:
        raise NotImplementedError

    def _on_connection(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self.channel = channel
        channel.queue_declare(
            self.queue, durable=True, arguments=QUORUM, callback=lambda _: self.begin()
        )


class _Publisher(_Client):
    properties: Any = pika.BasicProperties

    def begin(self) -> None:
        self.source = load(self.total)
        self.sent = self.confirmed = self.lost = 0
        self.open: dict[int, None] = {}
        self.channel.add_on_return_callback(self._on_return)
        self.channel.confirm_delivery(self._on_confirm, callback=lambda _: self._start())

    def _start(self) -> None:
        self.started = time.perf_counter()
        self._fill()

    def _fill(self) -> None:
        publish, queue = self.channel.basic_publish, self.queue
        while len(self.open) < WINDOW and self.sent < self.total:
            key, body = next(self.source)
            properties = self.properties(headers={"key": key, **HEADERS}, delivery_mode=2)
            self.sent += 1
            self.open[self.sent] = None
            publish("", queue, body, properties, mandatory=True)

    def _on_return(self, *_: Any) -> None:
        self.lost += 1

    def _on_confirm(self, frame: Any) -> None:
        tag, known = frame.method.delivery_tag, self.open
        if frame.method.NAME != "Basic.Ack":
            self.lost += 1
        if frame.method.multiple:
            for open_tag in list(takewhile(lambda each: each <= tag, known)):
                del known[open_tag]
        else:
            del known[tag]
        self._fill()
        if not known:
            self.seconds = time.perf_counter() - self.started
            self.end()


class _Consumer(_Client):
    def begin(self) -> None:
        self.watch = Watch(self.total)
        self.unacked = 0
        self.channel.basic_qos(prefetch_count=PREFETCH)
        self.channel.basic_consume(self.queue, self._on_message)
        self._look_up(seen=-1)

    def _look_up(self, seen: int) -> None:
        """End, with what there is, once a whole IDLE_S has brought nothing new."""
        if len(self.watch.seen) == seen:
            self._finish()
        elif not self.watch.complete:
            following = partial(self._look_up, len(self.watch.seen))
            self.connection.ioloop.call_later(IDLE_S, following)

    def _finish(self) -> None:
        self.result = self.watch.stop()
        self.end()

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.watch.saw([body])
        self.unacked += 1
        if self.unacked >= ACK_EVERY or self.watch.complete:
            channel.basic_ack(method.delivery_tag, multiple=True)
            self.unacked = 0
        if self.watch.complete:
            self._finish()


def publish(url: str, queue: str, total: int) -> Measured:
    """Persistent, mandatory, confirmed, at most WINDOW unconfirmed."""
    client = _Publisher(url, queue, total)
    client.run()
    return Measured(total / client.seconds, client.lost)


def consume(url: str, queue: str, total: int) -> Measured:
    """One ack for every ACK_EVERY."""
    client = _Consumer(url, queue, total)
    client.run()
    return client.result


def delete(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(queue)
