"""A user who may not do all: at the first open, while it works, and until somebody mends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import take, until

import gearshift
from gearshift import App, Worker
from gearshift.telemetry import health
from native_brokers import RabbitMQ

from .conftest import OpenBus, ready_in

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


class User:
    """A user of the broker, who may do nothing until a test says so."""

    def __init__(self, broker: RabbitMQ, name: str) -> None:
        self._broker = broker
        self._calls = {
            "add": f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"secret">>, <<"t">>)',
            "delete": f'rabbit_auth_backend_internal:delete_user(<<"{name}">>, <<"t">>)',
            "may all": self._permissions(name, ".*", ".*", ".*"),
            "may use": self._permissions(name, "", ".*", ".*"),
            "may read": self._permissions(name, "", "", ".*"),
            "may nothing": self._permissions(name, "", "", ""),
            "no connections": (
                f'rabbit_auth_backend_internal:set_user_limits(<<"{name}">>, '
                '<<"{\\"max-connections\\": 0}">>, <<"t">>)'
            ),
            "any connections": (
                f'rabbit_auth_backend_internal:clear_user_limits(<<"{name}">>, <<"all">>, <<"t">>)'
            ),
            "hang up": f'rabbit_networking:close_all_user_connections(<<"{name}">>, <<"t">>)',
        }
        self.url = f"amqp://{name}:secret@127.0.0.1:{broker.port}/%2F"

    def change(self, *calls: str) -> None:
        """Have the broker do these, one after the other; new connections and channels heed them."""
        self._broker.evaluate(", ".join(self._calls[call] for call in calls))

    @staticmethod
    def _permissions(name: str, *patterns: str) -> str:
        """For configuring, writing and reading."""
        texts = ", ".join(f'<<"{pattern}">>' for pattern in patterns)
        return (
            f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"/">>, {texts}, <<"t">>)'
        )


@pytest.fixture
def user(rabbitmq: RabbitMQ, name: str) -> Iterator[User]:
    """Not there until a test adds it."""
    someone = User(rabbitmq, name)
    yield someone
    someone.change("delete")


@pytest.mark.parametrize(
    ("trouble", "mended", "told"),
    [
        (["delete"], ["add", "may all"], "refused the credentials"),
        (["may nothing", "hang up"], ["may all"], "not permitted"),
        (["no connections", "hang up"], ["any connections"], "connection limit"),
    ],
    ids=["password", "permission", "connection limit"],
)
def test_what_was_allowed_is_waited_for_when_it_is_refused(
    open_bus: OpenBus,
    user: User,
    name: str,
    caplog: pytest.LogCaptureFixture,
    trouble: list[str],
    mended: list[str],
    told: str,
) -> None:
    """Consumer and producer say why, seldom, and go on by themselves (spring-amqp#823)."""
    user.change("add", "may all")
    bus = open_bus(url=user.url)
    producer, consumer = bus.producer(name), bus.consumer(name)
    producer.send("before")
    take(consumer, 1)[0].ack()
    consumer.flush()
    user.change(*trouble)
    assert until(lambda: told in (bus.stats().receiving[0].disconnected or ""))
    user.change(*mended)
    producer.send("after", timeout_s=60)
    (delivery,) = take(consumer, 1)
    assert delivery.value == "after"
    delivery.ack()
    assert bus.stats().receiving[0].disconnected is None
    lines = [r for r in caplog.records if "may not connect again" in r.message]
    assert 1 <= sum(r.name == "gearshift.consumer" for r in lines) <= 2


def test_retries_that_may_not_be_stored_count_wait_and_end(
    open_bus: OpenBus, raw: BlockingChannel, user: User, name: str
) -> None:
    """Without the right to make the delay queues, and with a full dead-letter queue (bunny#613).

    A handler gets its attempts and no more, then the dead letter waits until there is room.
    """
    user.change("add", "may use")
    dead = f"{name}.dead"
    raw.queue_declare(name, durable=True)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    raw.queue_declare(dead, durable=True, arguments=full)
    raw.basic_publish("", dead, b"full")
    assert until(lambda: ready_in(raw, dead) == 1)
    bus = open_bus(
        f'[channels.c]\nmax_attempts = 3\nretry_delay_s = 0.05\ndead_letter = "d"\n'
        f'native.rabbitmq = {{ queue = "{name}" }}\n'
        f'[channels.d]\nnative.rabbitmq = {{ queue = "{dead}" }}',
        url=user.url,
    )
    app, attempts = App(), []

    @app.handler("c")
    def fail(delivery: gearshift.Delivery[Any]) -> None:
        attempts.append(delivery.attempt)
        raise ValueError("broken")

    worker = Worker(app, bus)
    worker.start()
    bus.producer("c").send({"n": 1})
    assert until(lambda: any("is over its length limit" in one for one in health.degraded(bus)))
    assert attempts == [1, 2, 3]
    assert health.problems(bus) == []
    raw.queue_purge(dead)
    assert until(lambda: ready_in(raw, dead) == 1)
    assert until(lambda: not health.degraded(bus))
    worker.stop()
    assert attempts == [1, 2, 3]
    assert ready_in(raw, name) == 0
    raw.queue_delete(name)
    raw.queue_delete(dead)


@pytest.mark.parametrize("wait_s", [0.0, 0.5], ids=["at-once", "later"])
def test_lost_messages_that_may_not_be_set_aside_are_taken_all_the_same(
    rabbitmq: RabbitMQ,
    open_bus: OpenBus,
    raw: BlockingChannel,
    user: User,
    name: str,
    wait_s: float,
) -> None:
    """By a user who may only read: one by one, in order, without going back and forth.

    Also if they are there long before somebody asks for one.
    """
    user.change("add", "may read")
    raw.queue_declare(name, durable=True)
    for number in range(3):
        raw.basic_publish("", name, b"%d" % number)
    assert until(lambda: ready_in(raw, name) == 3)
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as dying:
        takes = dying.channel()
        assert [takes.basic_get(name)[2] for _ in range(3)] == [b"0", b"1", b"2"]
    assert until(lambda: ready_in(raw, name) == 3)
    bus = open_bus(
        f'[channels.c]\ndead_letter = false\nnative.rabbitmq = {{ queue = "{name}" }}', url=user.url
    )
    with bus.consumer("c") as consumer:
        assert until(lambda: ready_in(raw, name) == 0)
        time.sleep(wait_s)
        for number in range(3):
            (delivery,) = take(consumer, 1)
            assert (delivery.body, delivery.redelivered) == (b"%d" % number, True)
            delivery.ack()
        raw.basic_publish("", name, b"new")
        (delivery,) = take(consumer, 1)
        assert delivery.body == b"new"
        delivery.ack()
    assert ready_in(raw, name) == 0
    raw.queue_delete(name)
