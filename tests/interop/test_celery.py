"""A Celery worker and a Gearshift service share a queue: tasks that pass through still run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from support.settings import profile_of, write_settings
from support.waiting import redrive_all, take

import gearshift
from native_brokers import RabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

APP = Path(__file__).with_name("celery_app.py")


@pytest.fixture(params=["rabbitmq", "rabbitmq4"], ids=["3", "4"])
def broker(request: pytest.FixtureRequest) -> RabbitMQ:
    """The oldest and the newest release."""
    found: RabbitMQ = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def queue(broker: RabbitMQ) -> Iterator[str]:
    """A name for Celery's queue and exchange, which go at the end."""
    name = f"celery-{os.getpid()}-{broker.port}"
    yield name
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().queue_delete(name)
        connection.channel().exchange_delete(name)


@contextlib.contextmanager
def celery(broker: RabbitMQ, queue: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The Celery application as a process, ended at the end."""
    command = [sys.executable, str(APP), broker.url, queue, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # it has nothing in hand, and takes its time for an orderly end


def line(process: subprocess.Popen[str]) -> Any:
    """What it says next."""
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("said: "):
            return json.loads(text.removeprefix("said: "))
    raise AssertionError("it ended without a word")


@pytest.mark.parametrize("end", ["redriven", "retried"])
def test_a_task_that_failed_in_gearshift_runs_in_celery_as_it_was_sent(
    broker: RabbitMQ, queue: str, end: str
) -> None:
    """Retried twice, or dead and redriven: arguments, ETA, priority, expiry and headers stay."""
    with celery(broker, queue, "work") as worker:
        assert line(worker) == "ready"  # it has declared its queue
    with celery(broker, queue, "send", "8") as sender:
        task_id = line(sender)
    native = f'[channels.tasks]\nnative.rabbitmq = {{ queue = "{queue}" }}'
    file = write_settings(Path(), profile_of(broker), native)
    with gearshift.open(file) as bus:
        with bus.consumer("tasks") as consumer:
            for delay_s in (0.0, 0.2):
                (delivery,) = take(consumer, 1)
                delivery.retry(delay_s=delay_s)
            (delivery,) = take(consumer, 1)
            assert delivery.attempt == 3
            assert delivery.key is None
            assert delivery.headers["task"] == "shop.order"
            assert delivery.message.content_encoding == "utf-8"
            assert delivery.value[0] == [7]
            if end == "redriven":
                delivery.reject("not ours")
        if end == "redriven":
            redrive_all(bus, "tasks", 1)
    with celery(broker, queue, "work") as worker:
        assert line(worker) == "ready"
        ran = line(worker)
    assert ran.pop("late_s") >= 0.0
    assert ran.pop("eta")
    assert ran.pop("expires")
    assert ran == {
        "args": [7, "ü"],
        "id": task_id,
        "retries": 0,
        "priority": 5,
        "headers": {"x-shop-price": 1.5, "x-shop-none": None, "x-shop-table": {"a": [1, None]}},
    }


def test_a_task_that_gearshift_sends_runs_in_celery(broker: RabbitMQ, queue: str) -> None:
    """Celery's protocol is two headers and a body of JSON: a plain send can say all of it."""
    native = f'[channels.tasks]\nnative.rabbitmq = {{ queue = "{queue}" }}'
    file = write_settings(Path(), profile_of(broker), native)
    with celery(broker, queue, "work") as worker:
        assert line(worker) == "ready"
        with gearshift.open(file) as bus:
            bus.producer("tasks").send(
                [[7], {"note": "ü"}, {}], headers={"task": "shop.order", "id": "task-1"}
            )
        ran = line(worker)
    assert (ran["id"], ran["args"]) == ("task-1", [7, "ü"])
