"""Brokers that are killed and come back: nothing confirmed is lost, both sides go on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gearshift
from gearshift.errors import GearshiftError, StaleDelivery
from gearshift.exit_codes import exit_code
from native_brokers import Broker, Kafka, RabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.fixture(params=[RabbitMQ, Kafka], ids=["rabbitmq", "kafka"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker of this test alone, for it is killed."""
    with request.param() as server:
        yield server


def settings(broker: Broker, folder: Path) -> Path:
    file = folder / "gearshift.toml"
    if isinstance(broker, Kafka):
        profile = f'backend = "kafka"\nbootstrap_servers = ["{broker.url}"]'
    else:
        profile = f'backend = "rabbitmq"\nurl = "{broker.url}"'
    file.write_text(f'profile = "p"\n[profiles.p]\n{profile}\n[channels.orders]\ngroups = ["g"]\n')
    return file


class Sender(threading.Thread):
    """Sends numbers one by one and remembers those that have a receipt."""

    def __init__(self, producer: gearshift.Producer) -> None:
        super().__init__()
        self.producer = producer
        self.confirmed: list[int] = []
        self.errors: list[GearshiftError] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            try:
                self.producer.send({"n": number}, key=f"k{number % 7}", timeout_s=60)
                self.confirmed.append(number)
            except GearshiftError as error:
                self.errors.append(error)
            number += 1
            time.sleep(0.001)


class Receiver(threading.Thread):
    """Acks everything and counts how often each number came."""

    def __init__(self, consumer: gearshift.Consumer) -> None:
        super().__init__()
        self.consumer = consumer
        self.seen: dict[int, int] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            for delivery in self.consumer.receive(50, timeout_s=0.2):
                self.seen[delivery.value["n"]] = self.seen.get(delivery.value["n"], 0) + 1
                with contextlib.suppress(StaleDelivery):  # it comes again
                    delivery.ack()

    def wait_for(self, numbers: list[int], timeout_s: float) -> set[int]:
        deadline = time.monotonic() + timeout_s
        while (missing := set(numbers) - self.seen.keys()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return missing


def test_a_killed_broker_loses_nothing_and_both_sides_go_on(broker: Broker, tmp_path: Path) -> None:
    """SIGKILL while sending and consuming; after the restart sends succeed and all is received."""
    with gearshift.open(settings(broker, tmp_path)) as bus:
        sender = Sender(bus.producer("orders"))
        receiver = Receiver(bus.consumer("orders", group="g"))
        receiver.consumer.ready()
        sender.start()
        receiver.start()
        while len(receiver.seen) < 200:
            time.sleep(0.05)
        broker.kill()
        time.sleep(1.0)
        before = len(sender.confirmed)
        broker.start()
        deadline = time.monotonic() + 60
        while len(sender.confirmed) < before + 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        progress = len(sender.confirmed) - before
        sender.stopped.set()
        sender.join(90)
        missing = receiver.wait_for(sender.confirmed, 60)
        receiver.stopped.set()
        receiver.join(30)
    assert progress >= 200, "sending did not go on after the restart"
    assert not sender.errors
    assert not missing


def test_an_unreachable_broker_is_one_clear_error(broker: Broker, tmp_path: Path) -> None:
    """A broker that is down is named by host and port, and the error says that waiting may help."""
    file = settings(broker, tmp_path)
    broker.kill()
    with gearshift.open(file) as bus, pytest.raises(gearshift.errors.ConnectionFailed) as caught:
        bus.producer("orders", timeout_s=2.0)
    assert f"127.0.0.1:{broker.port}" in str(caught.value)
    assert caught.value.retryable
    assert exit_code(caught.value) == 3
