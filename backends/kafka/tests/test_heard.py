"""Whether a Kafka is heard, and not just asked."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.waiting import until

from gearshift.driver import ChannelSpec, ConsumerSpec
from gearshift.message import Semantics
from gearshift_kafka.backend import Backend
from gearshift_kafka.settings import ChannelSettings, NativeSettings, Settings
from gearshift_kafka.signals import Heard
from native_brokers import Kafka

from .conftest import NoEvents
from .test_producing import frozen

pytestmark = pytest.mark.broker


def test_a_producer_with_nothing_to_send_asks(
    kafka: Kafka, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen broker is not heard, whatever a profile says of asking; one that is back is."""
    monkeypatch.setattr(Heard, "INTERVAL_MS", 50)
    monkeypatch.setattr(Heard, "ASK_MS", 100)
    native = NativeSettings(producer={"topic.metadata.refresh.interval.ms": -1})
    backend = Backend(Settings(bootstrap_servers=(kafka.url,), native=native))
    channel = ChannelSpec(
        name=name, semantics=Semantics.STREAM, groups=(), native=ChannelSettings()
    )
    backend.admin().declare(channel)
    driver: Any = backend.producer(channel)

    def silent_s() -> float:
        return time.monotonic() - float(driver.heard_at)

    opened = time.monotonic()
    assert until(lambda: time.monotonic() - opened > 3.0 and silent_s() < 1.0)
    with frozen(kafka):
        assert until(lambda: silent_s() > 2.0)
    assert until(lambda: silent_s() < 1.0)
    driver.close(1.0)
    backend.admin().delete(channel)


@pytest.mark.parametrize("semantics", Semantics)
def test_a_driver_tells_when_the_broker_was_last_heard(
    kafka: Kafka,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    semantics: Semantics,
) -> None:
    """Also while nothing is wanted; a frozen broker is not heard, however often it is looked at,
    and a line in the log says so."""
    monkeypatch.setattr(Heard, "INTERVAL_MS", 50)
    monkeypatch.setattr(Heard, "WARN_AFTER_S", 1.0)
    backend = Backend(Settings(bootstrap_servers=(kafka.url,)))
    channel = ChannelSpec(name=name, semantics=semantics, groups=("g",), native=ChannelSettings())
    backend.admin().declare(channel)
    spec = ConsumerSpec(channel=channel, group="g", member="m", prefetch=1)
    driver: Any
    if semantics is Semantics.QUEUE:
        driver = backend.queue_consumer(spec)
    else:
        driver = backend.log_consumer(spec, NoEvents())

    def silent_s() -> float:
        driver.receive(0, 0.05)
        return time.monotonic() - float(driver.heard_at)

    opened = time.monotonic()
    assert until(lambda: silent_s() < time.monotonic() - opened)
    with frozen(kafka):
        assert until(lambda: silent_s() > 2.0)
        assert until(
            lambda: silent_s() and any("has said nothing" in line for line in caplog.messages)
        )
    assert until(lambda: silent_s() < 1.0)
    driver.close(1.0)
    backend.admin().delete(channel)
