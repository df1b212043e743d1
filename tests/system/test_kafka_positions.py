"""On Kafka a position never passes an unsettled message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import drain, until

import gearshift
from native_brokers import Kafka

pytestmark = pytest.mark.broker

CRASHES = """
import sys
import gearshift
with gearshift.open(sys.argv[1]) as bus:
    consumer = bus.consumer("orders", group="g", create=True)
    consumer.ready()
    deliveries = []
    while len(deliveries) < 10:
        deliveries += consumer.receive(10)
    for delivery in deliveries:
        if delivery.value != 3:
            delivery.ack()
    sys.stdin.read()
"""


def test_an_out_of_order_settle_and_a_crash_bring_the_message_back(
    kafka: Kafka, tmp_path: Path
) -> None:
    """Messages 0 to 9 of one partition, 3 left unsettled, SIGKILL: 3 comes again, 0 to 2 do not."""
    file = tmp_path / "gearshift.toml"
    file.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "kafka"\nbootstrap_servers = ["{kafka.url}"]\n'
        '[channels.orders]\npartitions = 1\nnative.kafka.topic = "out-of-order"\n'
    )
    create = tmp_path / "create.toml"
    create.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "kafka"\nbootstrap_servers = ["{kafka.url}"]\n'
        "[channels.out-of-order]\npartitions = 1\n"
    )
    with gearshift.open(create) as bus, bus.producer("out-of-order") as producer:
        for number in range(10):
            producer.send(number)
    command = [sys.executable, "-c", CRASHES, str(file)]
    with gearshift.open(file) as bus:
        with subprocess.Popen(command, stdin=subprocess.PIPE) as crashing:
            assert until(lambda: [one.lag for one in bus.groups("orders")] == [7])
            crashing.kill()
        with bus.consumer("orders", group="g") as consumer:
            assert drain(consumer, 7) == [3, 4, 5, 6, 7, 8, 9]
