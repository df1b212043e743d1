"""Buses, raw clients and fresh names on a real RabbitMQ."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

import gearshift
from native_brokers import RabbitMQ

_numbers = itertools.count()


class OpenBus(Protocol):
    """Opens a bus on the broker; closed when the test ends."""

    def __call__(self, channels: str = "", *, profile: str = "", port: int = 0) -> gearshift.Bus:
        """``channels`` and ``profile`` are TOML; ``port`` is that of a proxy."""


@pytest.fixture(scope="session", params=["rabbitmq", "rabbitmq4"], ids=["3", "4"])
def rabbitmq(request: pytest.FixtureRequest) -> RabbitMQ:
    """The oldest and the newest release."""
    broker: RabbitMQ = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def name() -> str:
    """A channel name that no other test has."""
    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def open_bus(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[OpenBus]:
    """See OpenBus. Each call is a bus of its own."""
    with contextlib.ExitStack() as stack:

        def make(channels: str = "", *, profile: str = "", port: int = 0) -> gearshift.Bus:
            url = rabbitmq.url.replace(f":{rabbitmq.port}/", f":{port or rabbitmq.port}/")
            file = tmp_path / f"{next(_numbers)}.toml"
            url_line = "" if profile.startswith("url") else f'url = "{url}"'
            file.write_text(
                f'profile = "p"\n[profiles.p]\nbackend = "rabbitmq"\n{url_line}\n{profile}\n'
                f"{channels}\n"
            )
            return stack.enter_context(gearshift.open(file))

        yield make


@pytest.fixture
def hasty(rabbitmq: RabbitMQ) -> Iterator[float]:
    """The broker takes back what is unsettled for longer than this: its consumer_timeout, in s."""

    def impose(timeout_ms: int, look_every_ms: int) -> None:
        for key, value in (
            ("channel_tick_interval", look_every_ms),
            ("consumer_timeout", timeout_ms),
        ):
            rabbitmq.ctl("eval", f"application:set_env(rabbit, {key}, {value}).")

    impose(1000, 300)
    yield 1.0
    impose(1_800_000, 60_000)


@pytest.fixture
def raw(rabbitmq: RabbitMQ) -> Iterator[BlockingChannel]:
    """An AMQP channel of a plain client; the test may kill the broker meanwhile."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    yield connection.channel()
    with contextlib.suppress(AMQPError):
        connection.close()


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> bool:
    """Wait until ``condition`` holds; False if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ready_in(raw: BlockingChannel, queue: str) -> int:
    """Messages of ``queue`` that nobody holds; 0 if it is not there."""
    asking = raw.connection.channel()  # a refusal closes it
    try:
        count = int(asking.queue_declare(queue, passive=True).method.message_count)
    except ChannelClosedByBroker:
        return 0
    asking.close()
    return count


def take(raw: BlockingChannel, queue: str) -> tuple[pika.BasicProperties, bytes]:
    """Take the next message of ``queue``, waiting for it."""
    found: list[tuple[pika.BasicProperties, bytes]] = []

    def look() -> bool:
        method, properties, body = raw.basic_get(queue, auto_ack=True)
        if method is not None:
            found.append((properties, body))
        return bool(found)

    assert until(look), f"nothing in {queue}"
    return found[0]
