"""pika by hand, to be measured beside: pipelined as far as it goes, confirmed, acknowledged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import Any

import pika

from gearshift.driver import ChannelSpec
from gearshift.driver.measuring import (
    HEADERS,
    IDLE_S,
    PREFETCH,
    Load,
    RawClient,
    Received,
    Sample,
    Stopwatch,
    Timer,
    by_connection,
)
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift_rabbitmq.connection import parameters
from gearshift_rabbitmq.nodes import Address
from gearshift_rabbitmq.queue.names import QueueNames
from gearshift_rabbitmq.settings import Settings

__all__ = ["raw_client"]

_WINDOW = 2000  # unconfirmed


def raw_client(settings: Settings, channel: ChannelSpec) -> RawClient | None:
    """pika on the default group's queue; None for streams, which it has no quick way for."""
    if channel.semantics is not Semantics.QUEUE:
        return None
    host, port = settings.endpoints()[0]
    by_hand = _ByHand(
        parameters(settings, Address(host, host, port), "raw", settings.connect_timeout_s),
        QueueNames.of(channel).queue(DEFAULT_GROUP),
    )
    return RawClient(f"pika {pika.__version__}", by_hand)


class _ByHand:
    """One queue, sent to through the default exchange."""

    def __init__(self, where: pika.ConnectionParameters, queue: str) -> None:
        self._where = where
        self._queue = queue

    def send(self, load: Load) -> Sample:
        """BlockingConnection with confirms, one for each thread."""

        def publish(channel: Any, key: str, body: bytes) -> None:
            channel.basic_publish("", self._queue, body, _properties(key), mandatory=True)

        return by_connection(self._confirming, publish, load)

    def send_many(self, load: Load) -> Sample:
        """SelectConnection, persistent, mandatory, at most 2,000 unconfirmed."""
        return _Publisher(self._where, self._queue, load).run()

    def receive(self, load: Load) -> Sample:
        """SelectConnection, each acknowledged by itself."""
        return _Consumer(self._where, self._queue, load).run()

    def end_to_end(self, load: Load) -> Sample:
        """BlockingConnection on both sides."""
        watch = Stopwatch(load)

        def serve() -> None:
            with self._channel() as channel:
                channel.basic_qos(prefetch_count=PREFETCH)
                messages = channel.consume(self._queue, inactivity_timeout=1)
                watch.ready()
                for method, _, body in messages:
                    if method is not None:
                        watch.arrived(body)
                        channel.basic_ack(method.delivery_tag)
                    if watch.ended:
                        break
                channel.cancel()

        with self._confirming() as out:
            publish = partial(out.basic_publish, "", self._queue, mandatory=True)
            return watch.run(lambda body: publish(body, _properties("")), serve)

    @contextmanager
    def _confirming(self) -> Iterator[Any]:
        with self._channel() as channel:
            channel.confirm_delivery()
            yield channel

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(self._where)
        try:
            yield connection.channel()
        finally:
            connection.close()


def _properties(key: str) -> pika.BasicProperties:
    return pika.BasicProperties(headers={"key": key, **HEADERS}, delivery_mode=2)


class _Client:
    """A connection with one AMQP channel; ``begin`` is called when it is there."""

    def __init__(self, where: pika.ConnectionParameters, queue: str, load: Load) -> None:
        self.queue = queue
        self.load = load
        self.connection = pika.SelectConnection(
            where, on_open_callback=self._on_connection, on_open_error_callback=self._on_failure
        )
        self.channel: Any = None
        self.sample = Sample(0)
        self.error: Exception | None = None

    def run(self) -> Sample:
        try:
            self.connection.ioloop.start()
        finally:
            self.connection.ioloop.close()
        if self.error is not None:
            raise self.error
        return self.sample

    def end(self) -> None:
        self.connection.add_on_close_callback(lambda *_: self.connection.ioloop.stop())
        self.connection.close()

    def begin(self) -> None:
        raise NotImplementedError

    def _on_connection(self, connection: Any) -> None:
        connection.add_on_close_callback(self._on_close)
        connection.channel(on_open_callback=self._on_channel)

    def _on_failure(self, connection: Any, error: Exception) -> None:
        self.error = error
        connection.ioloop.stop()

    def _on_close(self, connection: Any, error: Exception) -> None:
        if not self.sample.done:
            self._on_failure(connection, error)

    def _on_channel(self, channel: Any) -> None:
        self.channel = channel
        self.begin()


class _Publisher(_Client):
    def begin(self) -> None:
        self.source = iter(self.load)
        self.sent = self.refused = 0
        self.open: dict[int, None] = {}
        self.channel.add_on_return_callback(self._on_return)
        self.channel.confirm_delivery(self._on_confirm, callback=lambda _: self._start())

    def _start(self) -> None:
        self.timer = Timer()
        self._fill()

    def _fill(self) -> None:
        publish, queue = self.channel.basic_publish, self.queue
        while len(self.open) < _WINDOW and self.sent < self.load.total:
            key, body = next(self.source)
            self.sent += 1
            self.open[self.sent] = None
            publish("", queue, body, _properties(key), mandatory=True)

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
            self.sample = self.timer.sample(self.load.total - self.refused)
            self.end()


class _Consumer(_Client):
    def begin(self) -> None:
        self.received = Received(self.load.total)
        self.last = time.monotonic()
        self.channel.basic_qos(prefetch_count=PREFETCH)
        self.channel.basic_consume(self.queue, self._on_message)
        self._look_up()

    def _look_up(self) -> None:
        """End, with what there is, once IDLE_S has brought nothing."""
        if time.monotonic() - self.last > IDLE_S:
            self._finish()
        elif not self.received.complete:
            self.connection.ioloop.call_later(1.0, self._look_up)

    def _finish(self) -> None:
        self.sample = self.received.sample()
        self.end()

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.last = time.monotonic()
        self.received.add(body)
        channel.basic_ack(method.delivery_tag)
        if self.received.complete:
            self._finish()
