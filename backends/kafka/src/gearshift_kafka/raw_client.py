"""confluent-kafka by hand, to be measured beside: a callback for each message, a commit a batch."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Message, Producer

from gearshift.driver import ChannelSpec
from gearshift.driver.measuring import (
    HEADERS,
    IDLE_S,
    Load,
    RawClient,
    Received,
    Sample,
    Stopwatch,
    in_threads,
    timed,
)
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift_kafka.names import group_id, topic_name
from gearshift_kafka.settings import Settings

__all__ = ["raw_client"]


def raw_client(settings: Settings, channel: ChannelSpec) -> RawClient | None:
    """confluent-kafka on a topic and the default group; None for queues."""
    if channel.semantics is not Semantics.STREAM:
        return None
    by_hand = _ByHand(settings, topic_name(channel), group_id(channel, DEFAULT_GROUP))
    return RawClient(f"confluent-kafka {confluent_kafka.__version__}", by_hand)


class _ByHand:
    """With the profile's addresses, security and compression, else as the client is by itself."""

    def __init__(self, settings: Settings, topic: str, group: str) -> None:
        self._conf = settings.client("admin")
        self._sending = {
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": settings.compression,
            "linger.ms": settings.linger_s * 1000,
        }
        self._topic = topic
        self._group = group

    def send(self, load: Load) -> Sample:
        """produce and flush, without linger; of many threads each waits for its own report."""
        producer = self._producer(**{"linger.ms": 0})
        if load.threads == 1:
            return in_threads(lambda key, body: self._flushed(producer, body, key), load)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                producer.poll(0.1)

        def one(key: str, body: bytes) -> None:
            report = _Report()
            producer.produce(self._topic, body, key, headers=_headers(), on_delivery=report)
            report.wait()

        server = threading.Thread(target=serve)
        server.start()
        try:
            return in_threads(one, load)
        finally:
            ended.set()
            server.join()

    def send_many(self, load: Load) -> Sample:
        """produce with key, headers, id, timestamp and callback, then flush."""
        producer = self._producer()
        stored = 0

        def reported(error: Any, _message: Message) -> None:
            nonlocal stored
            stored += error is None

        def run() -> int:
            for number, (key, body) in enumerate(load):
                producer.produce(
                    self._topic,
                    body,
                    key,
                    headers=_headers(),
                    timestamp=time.time_ns() // 1_000_000,
                    on_delivery=reported,
                )
                if number % 500 == 0:
                    producer.poll(0)
            producer.flush(3 * IDLE_S)
            return stored

        return timed(run)

    def receive(self, load: Load) -> Sample:
        """consume(500), reading the values only, one commit a batch."""
        consumer = self._consumer()
        received = Received(load.total)
        deadline = time.monotonic() + 3 * IDLE_S
        while not received.complete and time.monotonic() < deadline:
            messages = consumer.consume(received.wanted, 1.0)
            if messages:
                received.add(*(_value(message) for message in messages))
                consumer.commit(asynchronous=True)
        if received.seen:
            consumer.commit(asynchronous=False)
        sample = received.sample()
        consumer.close()
        return sample

    def end_to_end(self, load: Load) -> Sample:
        """produce and flush without linger; poll, and commit each."""
        watch = Stopwatch(load)
        producer = self._producer(**{"linger.ms": 0})

        def serve() -> None:
            consumer = self._consumer(on_assign=lambda *_: watch.ready())
            while not watch.ended:
                message = consumer.poll(1.0)
                if message is not None:
                    watch.arrived(_value(message))
                    consumer.commit(message=message, asynchronous=True)
            consumer.close()

        return watch.run(lambda body: self._flushed(producer, body, None), serve)

    def _flushed(self, producer: Producer, body: bytes, key: str | None) -> None:
        report = _Report()
        producer.produce(self._topic, body, key, headers=_headers(), on_delivery=report)
        producer.flush()
        report.wait()

    def _producer(self, **settings: Any) -> Producer:
        producer = Producer(self._conf | self._sending | settings)
        producer.list_topics(self._topic, IDLE_S)  # connects, which is not to be measured
        return producer

    def _consumer(self, **callbacks: Any) -> Consumer:
        ours = {
            "group.id": self._group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        consumer = Consumer(self._conf | ours)
        consumer.subscribe([self._topic], **callbacks)
        return consumer


class _Report:
    """Of one message: a callback of the client, for which a thread waits."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._error: Any = None

    def __call__(self, error: Any, _message: Message) -> None:
        self._error = error
        self._came.set()

    def wait(self) -> None:
        """Raise what the report says, or that there is none."""
        if not self._came.wait(IDLE_S):
            raise TimeoutError(f"no report within {IDLE_S:g} s")
        if self._error is not None:
            raise KafkaException(self._error)


def _headers() -> list[tuple[str, str | bytes | None]]:
    """Those of every client, and an id, as Gearshift gives one to each message."""
    return [*HEADERS.items(), ("message-id", uuid.uuid4().hex)]


def _value(message: Message) -> bytes | None:
    if (error := message.error()) is not None:
        raise KafkaException(error)
    return message.value()
