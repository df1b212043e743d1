"""A shared broker is left empty: what a test made there goes when the test ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import pika
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from redis import Redis as RedisClient

from native_brokers import Broker, Kafka, RabbitMQ, Redis
from support.waiting import until

_TIMEOUT_S = 30.0


class _Cleaner(Protocol):
    def delete(self) -> None:
        """Delete what tests have made, as far as that is known and possible by now."""

    def left(self) -> list[str]:
        """Names of all that is there, asked of the broker."""


_cleaners: list[_Cleaner] = []


@contextlib.contextmanager
def kept_empty(broker: Broker) -> Iterator[None]:
    """While the block runs, each test's end empties the broker; fails in the end if it is not.

    The names that a failure shows are those of channels, which tell the test that made them.
    """
    cleaner = _cleaner(broker)
    _cleaners.append(cleaner)
    try:
        yield
        cleaner.delete()
        if left := cleaner.left():
            pytest.fail(f"left on {broker.name}: {', '.join(left)}", pytrace=False)
    finally:
        _cleaners.remove(cleaner)


def empty_brokers() -> None:
    """Delete what the test that ends now has made; its clients are closed by now."""
    for cleaner in _cleaners:
        cleaner.delete()


def _cleaner(broker: Broker) -> _Cleaner:
    if isinstance(broker, Kafka):
        return _KafkaCleaner(broker)
    if isinstance(broker, RabbitMQ):
        return _RabbitCleaner(broker)
    assert isinstance(broker, Redis)
    return _RedisCleaner(broker)


class _KafkaCleaner:
    def __init__(self, broker: Kafka) -> None:
        self._admin = AdminClient({"bootstrap.servers": broker.url, "log_level": 0})

    def _topics(self) -> list[str]:
        topics = self._admin.list_topics(timeout=_TIMEOUT_S).topics
        return [topic for topic in topics if not topic.startswith("__")]

    def _groups(self) -> list[str]:
        listing = self._admin.list_consumer_groups(request_timeout=_TIMEOUT_S).result()
        return [group.group_id for group in listing.valid]

    def delete(self) -> None:
        """A group whose members were killed outlives them for a while: a later call gets it."""
        if topics := self._topics():
            _results(self._admin.delete_topics(topics, request_timeout=_TIMEOUT_S))
        if groups := self._groups():
            _results(self._admin.delete_consumer_groups(groups, request_timeout=_TIMEOUT_S))

    def left(self) -> list[str]:
        until(lambda: self.delete() or not self._groups())
        return [*self._topics(), *(f"group {group}" for group in self._groups())]


def _results(futures: dict[str, Any]) -> None:
    for future in futures.values():
        with contextlib.suppress(KafkaException):
            future.result()


class _RabbitCleaner:
    def __init__(self, broker: RabbitMQ) -> None:
        self._broker = broker

    def delete(self) -> None:
        """Each name as a queue and as an exchange; to delete what is not there is fine."""
        if not (names := self._broker.names()):
            return
        with pika.BlockingConnection(pika.URLParameters(self._broker.url)) as connection:
            channel = connection.channel()
            for name in names:
                channel.queue_delete(name)
                channel.exchange_delete(name)

    def left(self) -> list[str]:
        return sorted(self._broker.names())


class _RedisCleaner:
    def __init__(self, broker: Redis) -> None:
        self._client = RedisClient.from_url(broker.url)

    def delete(self) -> None:
        with self._client:
            self._client.flushdb()

    def left(self) -> list[str]:
        with self._client:
            return [key.decode() for key in self._client.scan_iter()]
