"""How tests wait. A deadline is only the end of patience: a test goes on when the event is there.

The variable TEST_PATIENCE multiplies every limit: 3 for a machine that is slow or busy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

import gearshift
from gearshift.operations.redrive import redrive

FACTOR = float(os.environ.get("TEST_PATIENCE", "1"))

#: How long to wait for what is bound to happen.
PATIENCE_S = 60.0 * FACTOR


def until(condition: Callable[[], object]) -> bool:
    """Wait until ``condition`` holds; False if it does not in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def take(consumer: gearshift.Consumer, count: int) -> list[gearshift.Delivery]:
    """The next ``count`` deliveries, waiting for them."""
    deliveries: list[gearshift.Delivery] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(deliveries) < count:
        deliveries += consumer.receive(count - len(deliveries), timeout_s=1.0)
        assert time.monotonic() < deadline, f"only {len(deliveries)} of {count} came"
    return deliveries


def drain(consumer: gearshift.Consumer, count: int) -> list[object]:
    """Values of the next ``count`` deliveries, each acked; no other comes."""
    values = [value for _ in range(count) for value in ack_all(take(consumer, 1))]
    assert consumer.receive(timeout_s=0.2) == []
    return values


def redrive_all(bus: gearshift.Bus, channel: str, count: int) -> None:
    """Redrive ``count`` dead letters of ``channel``, waiting for them; there is no other."""
    assert redrive(bus, channel, most=count, idle_timeout_s=PATIENCE_S).moved == count
    assert redrive(bus, channel, idle_timeout_s=0.5).moved == 0


def ack_all(deliveries: Iterable[gearshift.Delivery]) -> list[object]:
    """Ack them; their values."""
    values = []
    for delivery in deliveries:
        delivery.ack()
        values.append(delivery.value)
    return values
