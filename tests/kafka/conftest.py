"""Buses, raw clients and fresh names on a real Kafka."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from confluent_kafka.admin import AdminClient
from support.settings import profile_of, write_settings

import gearshift
from gearshift.driver import Place
from native_brokers import Kafka


class OpenBus(Protocol):
    """Opens a bus on the broker; closed when the test ends."""

    def __call__(self, channels: str = "", *, profile: str = "", url: str = "") -> gearshift.Bus:
        """``channels`` and ``profile`` are TOML; ``url`` is another broker or a proxy."""


class NoEvents:
    """LogEvents for a driver without core."""

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None: ...

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        return {}

    def lost(self, partitions: Sequence[int]) -> None: ...

    def skipped(self, partition: int, count: int) -> None: ...


@pytest.fixture
def open_bus(kafka: Kafka, tmp_path: Path) -> Iterator[OpenBus]:
    """See OpenBus. Each call is a bus of its own."""
    with contextlib.ExitStack() as stack:

        def make(channels: str = "", *, profile: str = "", url: str = "") -> gearshift.Bus:
            lines = f"{profile_of(kafka, url)}\n{profile}"
            file = write_settings(tmp_path, lines, channels)
            return stack.enter_context(gearshift.open(file))

        yield make


@pytest.fixture
def raw_admin(kafka: Kafka) -> AdminClient:
    """The client's own view of the cluster."""
    return AdminClient({"bootstrap.servers": kafka.url})
