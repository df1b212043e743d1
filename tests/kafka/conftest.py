"""Buses, raw clients and fresh names on a real Kafka."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from confluent_kafka.admin import AdminClient

import gearshift
from native_brokers import Kafka

_numbers = itertools.count()


class OpenBus(Protocol):
    """Opens a bus on the broker; closed when the test ends."""

    def __call__(self, channels: str = "", *, profile: str = "", url: str = "") -> gearshift.Bus:
        """``channels`` and ``profile`` are TOML; ``url`` is another broker or a proxy."""


@pytest.fixture
def name() -> str:
    """A channel name that no other test has."""
    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def open_bus(kafka: Kafka, tmp_path: Path) -> Iterator[OpenBus]:
    """See OpenBus. Each call is a bus of its own."""
    with contextlib.ExitStack() as stack:

        def make(channels: str = "", *, profile: str = "", url: str = "") -> gearshift.Bus:
            file = tmp_path / f"{next(_numbers)}.toml"
            file.write_text(
                f'profile = "p"\n[profiles.p]\nbackend = "kafka"\n'
                f'bootstrap_servers = ["{url or kafka.url}"]\n{profile}\n{channels}\n'
            )
            return stack.enter_context(gearshift.open(file))

        yield make


@pytest.fixture
def raw_admin(kafka: Kafka) -> AdminClient:
    """The client's own view of the cluster."""
    return AdminClient({"bootstrap.servers": kafka.url})
