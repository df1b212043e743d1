"""Queue channels on real Kafkas, each with names of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from support.leftovers import kept_empty
from support.settings import profile_of, write_settings

import gearshift
from native_brokers import Kafka

Settings: TypeAlias = Callable[..., Path]

#: Of the hasty Kafka, in seconds.
LOCK_S = 4.0


@pytest.fixture(scope="session")
def hasty_kafka(kafka: Kafka) -> Iterator[Kafka]:
    """A Kafka of this run whose locks are over within seconds."""
    lock_ms = str(round(LOCK_S * 1000))
    settings = {
        "group.share.min.record.lock.duration.ms": "1000",
        "group.share.record.lock.duration.ms": lock_ms,
    }
    with Kafka(settings=settings) as broker, kept_empty(broker):
        yield broker


@pytest.fixture
def settings(kafka: Kafka, name: str, tmp_path: Path) -> Settings:
    """Writes a settings file with the queue ``name`` in it; returns its path."""

    def write(more: str = "", *, url: str = "", group: str = "g") -> Path:
        channel = f'[channels.{name}]\nsemantics = "queue"\ngroups = ["{group}"]\n{more}'
        return write_settings(tmp_path, profile_of(kafka, url), channel)

    return write


@pytest.fixture
def bus(settings: Settings) -> Iterator[gearshift.Bus]:
    """A bus whose queue retries soon."""
    with gearshift.open(settings("retry_delay_s = 0.1\nretry_max_delay_s = 0.2")) as opened:
        yield opened
