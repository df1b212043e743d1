"""Brokers for the shared fixtures: somebody else's by its address, or one that is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

import pytest

from native_brokers import Broker, Kafka, RabbitMQ, Redis
from support.leftovers import kept_empty

__all__ = ["VARIABLES", "broker", "is_given"]

AnyBroker = TypeVar("AnyBroker", bound=Broker)
VARIABLES: dict[type[Broker], str] = {
    RabbitMQ: "RABBITMQ_URL",
    Kafka: "KAFKA_BOOTSTRAP",
    Redis: "REDIS_URL",
}


def is_given(kind: type[Broker]) -> bool:
    """Tell whether the environment names a broker to test on; never with CI set."""
    return bool(os.environ.get(VARIABLES.get(kind, ""))) and not os.environ.get("CI")


@contextmanager
def broker(kind: type[AnyBroker]) -> Iterator[AnyBroker]:
    """The broker that the environment names, or else one of this run alone, which is kept empty."""
    if is_given(kind):
        yield _given(kind, VARIABLES[kind])
    else:
        with kind() as started, kept_empty(started):
            yield started


def _given(kind: type[AnyBroker], variable: str) -> AnyBroker:
    """Has an address; a test that breaks it or runs its commands is skipped."""
    address = os.environ[variable]

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.skip(f"breaks or commands the broker, which is not ours: {variable} is set")

    port = urlsplit(address if "://" in address else f"//{address}").port
    if port is None:
        raise ValueError(f"{variable} names no port")
    members = {"url": address, "port": port, "start": refuse, "kill": refuse, "_running": refuse}
    return type(kind.__name__, (kind,), members)()
