"""Who is measured at which work on which broker, and how fast Gearshift is to be beside them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from types import ModuleType

#: Name → module of clients/, or the folder of go/.
CLIENTS = {
    "gearshift": "gearshift_",
    "gearshift-queue": "gearshift_",
    "gearshift.aio": "gearshift_aio",
    "pika": "raw",
    "pika, one connection": "raw",
    "aio-pika": "aio_pika_",
    "kombu": "kombu_",
    "FastStream": "faststream_rabbit",
    "confluent-kafka": "raw",
    "AIOProducer": "confluent_aio",
    "aiokafka": "aiokafka_",
    "FastStream, aiokafka": "faststream_kafka",
    "FastStream, confluent": "faststream_confluent",
    "redis-py": "raw",
    "sqlite3": "raw",
    "litequeue": "litequeue_",
    "huey": "huey_",
    "persist-queue": "persistqueue_",
}
GO_CLIENTS = {"Go, amqp091": "amqp091", "Go, franz-go": "franz"}


@dataclass(frozen=True)
class Work:
    """A row of the matrix: ``others`` → the least ratio that Gearshift aims at, if there is one."""

    kind: str
    name: str
    total: int
    others: dict[str, float | None] = field(default_factory=dict)
    ours: str = "gearshift"
    threads: int = 1

    @property
    def title(self) -> str:
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.kind} {self.name}{threads}"

    def scaled(self, factor: float) -> Work:
        return replace(self, total=round(self.total * factor))


WORKS = [
    Work("rabbitmq", "send_many", 20_000,
         {"pika": 0.9, "aio-pika": 5, "kombu": 12, "FastStream": 8, "Go, amqp091": None}),
    Work("rabbitmq", "send", 3_000, {"pika": 1.0}),
    Work("rabbitmq", "send", 10_000, {"pika": None, "pika, one connection": 4}, threads=32),
    Work("rabbitmq", "receive", 20_000,
         {"pika": 1.1, "aio-pika": 6, "kombu": 4, "Go, amqp091": None}),
    Work("rabbitmq", "end_to_end", 3_000, {"pika": None}),
    Work("rabbitmq", "send_many", 20_000, {"gearshift": 0.8}, ours="gearshift.aio"),
    Work("rabbitmq", "receive", 20_000, {"gearshift": 0.8}, ours="gearshift.aio"),
    Work("kafka", "send_many", 50_000,
         {"confluent-kafka": 0.95, "AIOProducer": 1.0, "aiokafka": None,
          "FastStream, aiokafka": 5, "FastStream, confluent": None, "Go, franz-go": None}),
    Work("kafka", "send", 3_000, {"confluent-kafka": 0.8}),
    Work("kafka", "send", 20_000, {"confluent-kafka": 0.8}, threads=32),
    Work("kafka", "receive", 50_000,
         {"confluent-kafka": 0.4, "aiokafka": 0.8, "Go, franz-go": None}),
    Work("kafka", "end_to_end", 3_000, {"confluent-kafka": None}),
    Work("kafka", "send_many", 20_000, {"gearshift": None}, ours="gearshift-queue"),
    Work("kafka", "send_many", 50_000, {"gearshift": 0.8, "AIOProducer": 1.2},
         ours="gearshift.aio"),
    Work("kafka", "receive", 50_000, {"gearshift": 0.8}, ours="gearshift.aio"),
    Work("redis", "send", 3_000, {"redis-py": None}),
    Work("redis", "send_many", 20_000, {"redis-py": None}),
    Work("redis", "receive", 20_000, {"redis-py": None}),
    Work("sqlite", "send", 5_000,
         {"sqlite3": None, "litequeue": 1.0, "huey": None, "persist-queue": None}),
    Work("sqlite", "send_many", 20_000,
         {"sqlite3": None, "litequeue": 8, "huey": None, "persist-queue": None}),
    Work("sqlite", "receive", 10_000, {"sqlite3": None, "litequeue": 15, "persist-queue": None}),
]  # fmt: skip
#: Clients that do it from one thread, whatever the work says.
ALONE = {"pika, one connection"}
#: The same work in the words of a client that has only one way to do it.
INSTEAD = {
    ("litequeue", "send_many"): "send",
    ("huey", "send_many"): "send",
    ("persist-queue", "send_many"): "send",
}
#: End to end, messages a second: far below what any client can do.
PACE = 500
#: End to end Gearshift is to be at most so much slower: median, 99th percentile.
END_TO_END_AT_MOST = (1.2, 1.3)


def module_of(client: str) -> ModuleType:
    """Import the client's module."""
    return importlib.import_module(f"benchmarks.clients.{CLIENTS[client]}")
