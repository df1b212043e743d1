"""Buses, raw clients and fresh names on a real RabbitMQ."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker
from support.buses import OpenBus, opening
from support.waiting import until

from native_brokers import RabbitMQ


@pytest.fixture(scope="session", params=["rabbitmq", "rabbitmq4"], ids=["3", "4"])
def rabbitmq(request: pytest.FixtureRequest) -> RabbitMQ:
    """The oldest and the newest release."""
    broker: RabbitMQ = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def open_bus(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[OpenBus]:
    """See OpenBus. Each call is a bus of its own."""
    with opening(rabbitmq, tmp_path) as open_bus:
        yield open_bus


@pytest.fixture
def hasty(request: pytest.FixtureRequest, rabbitmq: RabbitMQ) -> Iterator[float]:
    """The broker takes back what is unsettled for longer than this: its consumer_timeout, in s."""
    limit_s: float = getattr(request, "param", 1.0)

    def impose(timeout_ms: int, look_every_ms: int) -> None:
        rabbitmq.evaluate(
            f"application:set_env(rabbit, channel_tick_interval, {look_every_ms}), "
            f"application:set_env(rabbit, consumer_timeout, {timeout_ms})"
        )

    impose(round(1000 * limit_s), 300)
    yield limit_s
    impose(1_800_000, 60_000)


@pytest.fixture
def raw(rabbitmq: RabbitMQ) -> Iterator[BlockingChannel]:
    """An AMQP channel of a plain client; the test may kill the broker meanwhile."""
    # Nobody serves it while the test waits for something else, which may take its time.
    connection = pika.BlockingConnection(pika.URLParameters(f"{rabbitmq.url}?heartbeat=0"))
    yield connection.channel()
    with contextlib.suppress(AMQPError):
        connection.close()


def stream(name: str, more: str = "partitions = 2") -> str:
    """Settings of a stream with one group, g."""
    return f'[channels.{name}]\nsemantics = "stream"\ngroups = ["g"]\n{more}\n'


def ready_in(raw: BlockingChannel, queue: str) -> int:
    """Messages of ``queue`` that nobody holds; 0 if it is not there."""
    asking = raw.connection.channel()  # a refusal closes it
    try:
        count = int(asking.queue_declare(queue, passive=True).method.message_count)
    except ChannelClosedByBroker:
        return 0
    asking.close()
    return count


def take_raw(raw: BlockingChannel, queue: str) -> tuple[pika.BasicProperties, bytes]:
    """Take the next message of ``queue``, waiting for it."""
    found: list[tuple[pika.BasicProperties, bytes]] = []

    def look() -> bool:
        method, properties, body = raw.basic_get(queue, auto_ack=True)
        if method is not None:
            found.append((properties, body))
        return bool(found)

    assert until(look), f"nothing in {queue}"
    return found[0]
