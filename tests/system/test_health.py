"""Health and metrics of a service whose broker stands still, on every broker, as over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.settings import profile_of
from support.waiting import take, until

import gearshift
from gearshift.telemetry import health
from gearshift.telemetry.pages import Pages
from native_brokers import Broker

pytestmark = pytest.mark.broker

#: Seconds. Heartbeats are set to be more often too. docs/design/0043 has what is by default.
SILENT_AFTER_S = 6.0
PROFILES = {"rabbitmq": "\nheartbeat_s = 2", "kafka": "", "redis": "\ntimeout_s = 1.0"}


@pytest.fixture(params=list(PROFILES))
def broker(request: pytest.FixtureRequest) -> Broker:
    """The suite's broker of that kind."""
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def service(
    broker: Broker, name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[gearshift.Bus]:
    """A bus that consumes and sends, on a queue and, where there are some, on a stream."""
    monkeypatch.setattr(health, "SILENT_AFTER_S", SILENT_AFTER_S)
    kind = broker.name.lower()
    kinds = ("queue",) if kind == "redis" else ("queue", "stream")
    channels = "".join(f'[channels.{name}-{one}]\nsemantics = "{one}"\n' for one in kinds)
    file = tmp_path / "gearshift.toml"
    file.write_text(f"[profiles.p]\n{profile_of(broker)}{PROFILES[kind]}\n{channels}")
    with gearshift.open(file) as bus:
        for channel in bus.config.channels:
            consumer = bus.consumer(channel)
            bus.producer(channel).send(1)
            take(consumer, 1)[0].ack()
        yield bus
        for channel in bus.config.channels:
            bus.delete(channel)


def test_a_broker_that_stands_still_makes_a_service_unhealthy_until_it_is_back(
    broker: Broker, service: gearshift.Bus
) -> None:
    """Each consumer says so; a scrape is answered meanwhile, and says that its depths are old."""
    pages = Pages(service)
    groups = [f"channel {channel!r}, group" for channel in service.config.channels]

    def problems() -> str:
        return " ".join(json.loads(pages.page("/healthz").body)["problems"])

    def is_up(value: str) -> Callable[[], bool]:
        line = f"gearshift_broker_up {value}\n".encode()
        return lambda: line in pages.page("/metrics").body

    assert until(lambda: not problems())
    assert until(is_up("1.0"))
    broker.pause()
    try:
        assert until(lambda: all(group in problems() for group in groups))
        assert pages.page("/healthz").status == 503
        assert is_up("0.0")()
    finally:
        broker.resume()
    assert until(lambda: not problems())
    assert pages.page("/healthz").status == 200
    assert until(is_up("1.0"))
