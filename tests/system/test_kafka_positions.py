"""On Kafka a position never passes an unsettled message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gearshift
from native_brokers import Kafka

pytestmark = pytest.mark.broker

CRASHES = """
import sys, os, signal, time
import gearshift
with gearshift.open(sys.argv[1]) as bus:
    consumer = bus.consumer("orders", group="g", create=True)
    consumer.ready()
    deliveries = []
    while len(deliveries) < 10:
        deliveries += consumer.receive(10, timeout_s=10)
    for delivery in deliveries:
        if delivery.value != 3:
            delivery.ack()
    consumer.flush()
    time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
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
    crash = subprocess.run([sys.executable, "-c", CRASHES, str(file)], env=dict(os.environ))
    assert crash.returncode == -signal.SIGKILL
    with gearshift.open(file) as bus, bus.consumer("orders", group="g") as consumer:
        again = [delivery.value for delivery in consumer.iterate(idle_timeout_s=20)]
    assert again == [3, 4, 5, 6, 7, 8, 9]
