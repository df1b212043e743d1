"""Buses, raw clients and fresh names on a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest
from redis import Redis as Client
from support.settings import profile_of, write_settings

import gearshift
from native_brokers import Redis

OpenBus: TypeAlias = Callable[..., gearshift.Bus]


@pytest.fixture
def raw(redis: Redis) -> Iterator[Client]:
    """A plain client."""
    with Client.from_url(redis.url) as client:
        yield client


@pytest.fixture
def open_bus(redis: Redis, name: str, tmp_path: Path) -> Iterator[OpenBus]:
    """Opens buses that know the channel ``name`` with the group ``g``."""
    with ExitStack() as stack:

        def make(channel: str = "", *, profile: str = "", url: str = "") -> gearshift.Bus:
            lines = f"{profile_of(redis, url)}\n{profile}"
            channels = f'[channels.{name}]\ngroups = ["g"]\n{channel}'
            file = write_settings(tmp_path, lines, channels)
            return stack.enter_context(gearshift.open(file))

        yield make
