"""Buses, raw clients and fresh names on a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from support.buses import OpenBus, opening

from gearshift.driver import Place
from native_brokers import Kafka


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
    with opening(kafka, tmp_path) as open_bus:
        yield open_bus


@pytest.fixture
def raw_admin(kafka: Kafka) -> AdminClient:
    """The client's own view of the cluster."""
    return AdminClient({"bootstrap.servers": kafka.url})
