"""Real brokers for the tests that need them: started once, here, and stopped by id at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from native_brokers import BrokerUnavailable, Kafka, RabbitMQ, RabbitMQ4, Redis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lanes for running side by side: what shares a broker stays on one worker."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_lane(item)))


def _lane(item: pytest.Item) -> str:
    column = getattr(item, "callspec", None) and item.callspec.params.get("gearshift_backend")
    if column is not None:
        return f"conformance {column}"
    shared = {"rabbitmq", "rabbitmq4", "kafka", "redis"} & set(getattr(item, "fixturenames", ()))
    return min(shared) if shared else item.nodeid.partition("::")[0]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's environment nor a gearshift.toml above reaches a test."""
    for name in list(os.environ):
        if name.startswith("GEARSHIFT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ of this run alone."""
    with _started(RabbitMQ) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq4() -> Iterator[RabbitMQ]:
    """The same of the newest release that tests can have."""
    with _started(RabbitMQ4) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A Kafka of this run alone."""
    with _started(Kafka) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A Redis of this run alone."""
    with _started(Redis) as broker:
        yield broker


def _started(kind: type) -> Any:
    try:
        kind.install()
    except BrokerUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return kind()
