"""pytest hooks: what brokers need is fetched before the first test, or else tests are skipped."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import suppress

import pytest

from native_brokers import (
    Broker,
    BrokerUnavailable,
    Kafka,
    Kafka43,
    NotInstalled,
    PostgreSQL,
    Prometheus,
    RabbitMQ,
    RabbitMQ40,
    RabbitMQ43,
    Redis,
)
from native_brokers.software import CHROMIUM, Software
from support import given

#: By the names of fixtures and of the conformance kit's columns.
_KINDS: dict[str, type[Broker]] = {
    "rabbitmq": RabbitMQ,
    "rabbitmq4": RabbitMQ43,
    "rabbitmq4.0": RabbitMQ40,
    "kafka": Kafka,
    "kafka4.3": Kafka43,
    "redis": Redis,
    "prometheus": Prometheus,
    "postgresql": PostgreSQL,
}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch what the brokers of these tests lack: a test's time limit has no room for it."""
    if session.config.option.collectonly:
        return
    for software in dict.fromkeys(each for item in session.items for each in _software(item)):
        with suppress(BrokerUnavailable):  # the tests that need it will say so
            software.install()


def _software(item: pytest.Item) -> Iterator[Software]:
    """What a test may need, by its fixtures, its parameters and what its module imports."""
    imported = vars(item.module) if isinstance(item, pytest.Function) else {}
    if "chromium" in imported:
        yield CHROMIUM
    if item.get_closest_marker("broker") is None:
        return  # its module may have others, and a parameter of such a name is only a word
    kinds = [kind for kind in _KINDS.values() if kind in imported.values()]
    kinds += [_KINDS[name] for name in _names(item) if name in _KINDS]
    for kind in kinds:
        if not given.is_given(kind):
            yield from kind.software()


def _names(item: pytest.Item) -> Iterator[str]:
    """Fixtures, and parameters that are text, also within a tuple as the conformance kit's are."""
    yield from getattr(item, "fixturenames", ())
    for value in item.callspec.params.values() if hasattr(item, "callspec") else ():
        values = value if isinstance(value, tuple) else (value,)
        yield from (each for each in values if isinstance(each, str))


@pytest.hookimpl(wrapper=True)
def _skip_what_cannot_be_installed() -> Generator[None, object, object]:
    """Without the software, and the right to install it, a test is skipped; never with CI set."""
    try:
        return (yield)
    except NotInstalled as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


pytest_runtest_setup = pytest_runtest_call = _skip_what_cannot_be_installed
