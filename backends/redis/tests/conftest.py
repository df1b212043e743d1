"""Buses, raw clients and fresh names on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as Client
from support.buses import OpenBus, opening

from native_brokers import Redis


@pytest.fixture
def raw(redis: Redis) -> Iterator[Client]:
    """A plain client."""
    with Client.from_url(redis.url) as client:
        yield client


@pytest.fixture
def open_bus(redis: Redis, name: str, tmp_path: Path) -> Iterator[OpenBus]:
    """Opens buses that know the channel ``name`` with the group ``g``."""
    with opening(redis, tmp_path, f'[channels.{name}]\ngroups = ["g"]') as open_bus:
        yield open_bus
