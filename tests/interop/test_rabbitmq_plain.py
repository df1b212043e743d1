"""A plain pika service on one side and Gearshift on the other, which changes nothing there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from support.waiting import PATIENCE_S, take, until

import gearshift
from native_brokers import RabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

PLAIN = Path(__file__).with_name("plain_pika.py")
COUNT = 20
ORDERS = [{"task": "process_order", "order_id": 123 + n} for n in range(COUNT)]


@pytest.fixture(params=["rabbitmq", "rabbitmq4"], ids=["3", "4"])
def broker(request: pytest.FixtureRequest) -> RabbitMQ:
    """The oldest and the newest release."""
    found: RabbitMQ = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def queue(broker: RabbitMQ, name: str) -> Iterator[str]:
    """A queue that no other test has, deleted in the end: the plain service declares it."""
    yield name
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().queue_delete(name)


def plain(verb: str, broker: RabbitMQ, *arguments: object) -> subprocess.Popen[str]:
    """The plain service as a process."""
    command = [sys.executable, str(PLAIN), verb, broker.url, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(verb: str, broker: RabbitMQ, *arguments: object) -> str:
    """What it printed, once it has ended well."""
    with plain(verb, broker, *arguments) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    return output


@contextlib.contextmanager
def opened(broker: RabbitMQ, native: str) -> Iterator[gearshift.Bus]:
    """A bus whose channel ``orders`` adopts what ``native`` names."""
    file = Path("gearshift.toml")
    file.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "rabbitmq"\nurl = "{broker.url}"\n'
        f'[channels.orders]\ncodec = "json"\nnative.rabbitmq = {{ {native} }}\n'
    )
    with gearshift.open(file) as bus:
        yield bus


def handled(consumer: gearshift.Consumer[Any], count: int = COUNT) -> list[Any]:
    """The tasks of ``count`` deliveries, decoded as a service does, each acknowledged."""
    found: list[Any] = []
    for _ in range(count):
        (delivery,) = take(consumer, 1)
        # A plain sender names no content type, so its body stays bytes.
        found.append(json.loads(delivery.body or b""))
        delivery.ack()
    consumer.flush()
    return found


def test_plain_tasks_reach_a_gearshift_service(broker: RabbitMQ, queue: str) -> None:
    """Every task of the plain sender comes once, in order; nothing is left in its queue."""
    run("send", broker, queue, COUNT)
    with opened(broker, f'queue = "{queue}"') as bus:
        assert handled(bus.consumer("orders")) == ORDERS
    assert left(broker, queue) == 0


def test_gearshift_tasks_reach_a_plain_service(broker: RabbitMQ, queue: str) -> None:
    """The plain worker, which declares its durable queue as ever, gets JSON that it understands."""
    with plain("work", broker, queue, COUNT) as worker:
        wait_for_queue(broker, queue)
        with opened(broker, f'queue = "{queue}"') as bus:
            bus.producer("orders").send_many(ORDERS)
        output, _ = worker.communicate(timeout=PATIENCE_S)
    assert output.splitlines() == [f"process_order {123 + n}" for n in range(COUNT)]
    assert left(broker, queue) == 0


def test_both_work_side_by_side_on_one_queue(broker: RabbitMQ, queue: str) -> None:
    """A plain worker and a Gearshift one share the queue: each task goes to one of them."""
    run("send", broker, queue, COUNT)
    with opened(broker, f'queue = "{queue}"') as bus:
        ours = handled(bus.consumer("orders", prefetch=1), COUNT // 2)
    theirs = run("work", broker, queue, COUNT // 2).splitlines()
    assert len(theirs) == COUNT // 2
    numbers = [order["order_id"] for order in ours] + [int(line.split()[1]) for line in theirs]
    assert sorted(numbers) == [order["order_id"] for order in ORDERS]


def test_an_existing_exchange_with_bindings_serves_both(broker: RabbitMQ, queue: str) -> None:
    """Plain publishes reach our group's queue, ours reach the plain worker's bound queue."""
    exchange = f"orders-of-{queue}"
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, exchange, "order.created")
    native = (
        f'exchange = "{exchange}", exchange_type = "topic", '
        'routing_key = "order.created", binding_key = "order.*"'
    )
    with opened(broker, native) as bus:
        consumer = bus.consumer("orders")
        run("publish", broker, exchange, "order.changed", COUNT)
        assert handled(consumer) == ORDERS
        bus.producer("orders").send_many(ORDERS)
        assert handled(consumer) == ORDERS
        assert len(run("work", broker, queue, COUNT).splitlines()) == COUNT
    assert left(broker, queue) == 0


def left(broker: RabbitMQ, queue: str) -> int:
    """Messages that wait in ``queue``."""
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def wait_for_queue(broker: RabbitMQ, queue: str) -> None:
    """Wait until the plain worker has declared its queue."""
    assert until(lambda: queue in broker.names()), f"{queue} never appeared"
