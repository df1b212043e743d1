"""Buses, raw clients and fresh names on a real Redis."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest
from redis import Redis as Client

import gearshift
from native_brokers import Redis

OpenBus: TypeAlias = Callable[..., gearshift.Bus]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A channel that no other test uses."""
    return f"orders-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def raw(redis: Redis) -> Iterator[Client]:
    """A plain client."""
    with Client.from_url(redis.url) as client:
        yield client


@pytest.fixture
def open_bus(redis: Redis, name: str, tmp_path: Path) -> Iterator[OpenBus]:
    """Opens buses that know the channel ``name`` with the group ``g``."""
    with ExitStack() as stack:

        def make(channel: str = "", *, profile: str = "", url: str = redis.url) -> gearshift.Bus:
            file = tmp_path / f"{next(_numbers)}.toml"
            file.write_text(
                f'profile = "p"\n[profiles.p]\nbackend = "redis"\nurl = "{url}"\n{profile}\n'
                f'[channels.{name}]\ngroups = ["g"]\n{channel}\n'
            )
            return stack.enter_context(gearshift.open(file))

        yield make


def take(consumer: gearshift.Consumer, count: int) -> list[gearshift.Delivery]:
    """Exactly so many deliveries, waiting for them."""
    deliveries: list[gearshift.Delivery] = []
    while len(deliveries) < count:
        more = consumer.receive(count - len(deliveries), timeout_s=30.0)
        assert more, f"only {len(deliveries)} of {count} came"
        deliveries += more
    return deliveries


def ack_all(deliveries: list[gearshift.Delivery]) -> list[object]:
    """Their values, once settled."""
    for delivery in deliveries:
        delivery.ack()
    return [delivery.value for delivery in deliveries]
