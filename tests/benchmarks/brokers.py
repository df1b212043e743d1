"""The brokers that are measured on: places for messages, and what lies there by plain clients."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pika
import redis
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.clients import gearshift_, raw
from benchmarks.matrix import module_of
from benchmarks.work import Load, Place
from native_brokers import Kafka, RabbitMQ43, Redis

PARTITIONS = 4


class Ground(Protocol):
    """A running broker, for clients in turns, which are named as in the matrix."""

    url: str  # whose channels are Gearshift's

    def place(self, client: str) -> Place:
        """Return a new, empty place."""

    def fill(self, client: str, place: Place, load: Load) -> None:
        """Send messages for ``client`` to receive, as its users would."""

    def left(self, client: str, place: Place) -> int:
        """Return how many messages lie there that its group has not settled."""


def fresh() -> str:
    """A name that nothing has."""
    return f"bench-{uuid.uuid4().hex[:8]}"


def _is_ours(client: str) -> bool:
    return client.startswith("gearshift")


class _OnRabbit:
    """A quorum queue for each round of each client; Gearshift makes its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def place(self, client: str) -> Place:
        place = Place(self.url, fresh())
        if _is_ours(client):
            gearshift_.declare(place)
        else:
            self._ask(
                lambda channel: channel.queue_declare(
                    place.name, durable=True, arguments={"x-queue-type": "quorum"}
                )
            )
        return place

    def fill(self, client: str, place: Place, load: Load) -> None:
        (gearshift_ if _is_ours(client) else raw).send_many(place, load)

    def left(self, client: str, place: Place) -> int:
        queue = f"{place.name}.default" if _is_ours(client) else place.name
        declared = self._ask(lambda channel: channel.queue_declare(queue, passive=True))
        return int(declared.method.message_count)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            return question(connection.channel())


class _OnKafka:
    """A topic of four partitions for each round of each client."""

    def __init__(self, address: str) -> None:
        self.url = f"kafka://{address}"
        self._address = address

    def place(self, client: str) -> Place:
        semantics = "queue" if client == "gearshift-queue" else ""
        place = Place(f"{semantics}+kafka://{self._address}".lstrip("+"), fresh())
        if _is_ours(client):
            gearshift_.declare(place)
        else:
            admin = AdminClient({"bootstrap.servers": self._address})
            admin.create_topics([NewTopic(place.name, PARTITIONS, 1)])[place.name].result()
        return place

    def fill(self, client: str, place: Place, load: Load) -> None:
        (gearshift_ if _is_ours(client) else raw).send_many(place, load)

    def left(self, client: str, place: Place) -> int:
        group = f"{place.name}.default" if _is_ours(client) else place.name
        reader = Consumer({"bootstrap.servers": self._address, "group.id": group})
        partitions = reader.list_topics(place.name, timeout=30).topics[place.name].partitions
        left = 0
        for at in _committed(reader, [TopicPartition(place.name, n) for n in partitions]):
            first, end = reader.get_watermark_offsets(at, timeout=30)
            left += end - (at.offset if at.offset >= 0 else first)
        reader.close()
        return left


def _committed(reader: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    deadline = time.monotonic() + 30
    while True:
        try:
            return reader.committed(partitions, timeout=30)
        except KafkaException:  # a broker that has just started has no coordinator yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class _OnSqlite:
    """A file for each round of each client, on one disk."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite://{folder}/growth.db"
        self._folder = folder

    def place(self, client: str) -> Place:
        place = Place(f"sqlite://{self._folder}/{fresh()}.db", fresh().replace("-", ""))
        if _is_ours(client):
            gearshift_.declare(place)
        return place

    def fill(self, client: str, place: Place, load: Load) -> None:
        module = module_of(client)
        (getattr(module, "send_many", None) or module.send)(place, load)

    def left(self, client: str, place: Place) -> int:
        return int(module_of(client).left(place))


class _OnRedis:
    """A channel for each round of each client."""

    def __init__(self, url: str) -> None:
        self.url = url

    def place(self, client: str) -> Place:
        place = Place(self.url, fresh())
        gearshift_.declare(place)
        return place

    def fill(self, client: str, place: Place, load: Load) -> None:
        module_of(client).send_many(place, load)

    def left(self, client: str, place: Place) -> int:
        with redis.Redis.from_url(self.url) as server:
            return int(server.xlen(f"gearshift:{{{place.name}}}:stream:default"))


class _InMemory:
    """Each process has its own."""

    url = "memory://"


@contextmanager
def started(kind: str) -> Iterator[Ground]:
    """A broker of that kind, for as long as the block."""
    if kind == "rabbitmq":
        with RabbitMQ43() as broker:
            yield _OnRabbit(broker.url)
    elif kind == "kafka":
        with Kafka(fast_start=False) as broker:
            yield _OnKafka(broker.url)
    elif kind == "redis":
        with Redis() as broker:
            yield _OnRedis(broker.url)
    elif kind == "memory":
        yield _InMemory()
    else:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            yield _OnSqlite(Path(folder))
