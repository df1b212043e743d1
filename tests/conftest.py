"""Real brokers for the tests that need them: started once, here, and stopped by id at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from native_brokers import BrokerUnavailable, Kafka, RabbitMQ, RabbitMQ4, Redis

BROKERS = {"rabbitmq", "rabbitmq4", "kafka", "redis"}


@pytest.hookimpl(tryfirst=True)  # xdist looks for the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lanes for running side by side, the longest first: what shares a broker stays together."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_lane(item)))
    items.sort(key=_order)


def _lane(item: pytest.Item) -> str:
    column = getattr(item, "callspec", None) and item.callspec.params.get("gearshift_backend")
    if column is not None:
        return f"conformance {column}"
    if _shared_brokers(item):
        return f"brokers {item.path.parent.name}"
    return item.nodeid.partition("::")[0]


def _order(item: pytest.Item) -> tuple[bool, bool]:
    """Brokers take long to start and to break, and Kafka longest."""
    kafka = "kafka" in item.nodeid or "kafka" in _shared_brokers(item)
    return not kafka, item.get_closest_marker("broker") is None


def _shared_brokers(item: pytest.Item) -> set[str]:
    return BROKERS & set(getattr(item, "fixturenames", ()))


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
