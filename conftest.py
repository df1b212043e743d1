"""Real brokers for the tests that need them: started once, here, and stopped by id at the end."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import given
from support.leftovers import empty_brokers, kept_empty

from native_brokers import Kafka, RabbitMQ, RabbitMQ43, Redis

pytest_plugins = [
    "gearshift.conformance.plugin",
    "support.hangs", "support.lanes", "support.scratch", "support.software", "support.summary",
]  # fmt: skip

_numbers = itertools.count()


def pytest_make_parametrize_id(val: object) -> str | None:
    """A long value is not part of a test's name: of some bodies of 64 MiB a worker died."""
    if isinstance(val, str | bytes) and len(val) > 100:
        return f"{val[:20]!r} and so on, {len(val)} in all"
    return None


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's environment nor a gearshift.toml above reaches a test."""
    for name in list(os.environ):
        if name.startswith("GEARSHIFT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_stays_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up before the test's own fixtures, so that it ends after them: see support.leftovers."""
    yield
    if request.node.get_closest_marker("broker"):
        empty_brokers()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A channel that no other test uses; its name tells which test made it."""
    words = request.node.originalname.removeprefix("test_").replace("_", "-")
    return f"{words[:40].strip('-')}-{next(_numbers)}"


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """The one that RABBITMQ_URL names, or one of this run alone."""
    with given.broker(RabbitMQ) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq4() -> Iterator[RabbitMQ]:
    """A RabbitMQ of the newest release that tests can have, of this run alone."""
    with RabbitMQ43() as broker, kept_empty(broker):
        yield broker


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """The one that KAFKA_BOOTSTRAP names, or one of this run alone."""
    with given.broker(Kafka) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """The one that REDIS_URL names, or one of this run alone."""
    with given.broker(Redis) as broker:
        yield broker
