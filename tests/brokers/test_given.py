"""The shared fixtures take a broker that the environment names, and do it no harm."""

from __future__ import annotations

import pytest
from support import given

from native_brokers import Broker, Kafka, RabbitMQ, Redis

ADDRESSES = {
    RabbitMQ: "amqp://guest:guest@127.0.0.1:5672/%2F",
    Kafka: "127.0.0.1:9092",
    Redis: "redis://127.0.0.1:6379/0",
}
HARM = [
    (kind, name)
    for kind in ADDRESSES
    for name in ("start", "kill", "pause", "resume", "ctl", "tool")
    if hasattr(kind, name)
]


@pytest.fixture(autouse=True)
def all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a broker of each kind, outside CI."""
    monkeypatch.delenv("CI", raising=False)
    for kind, address in ADDRESSES.items():
        monkeypatch.setenv(given.VARIABLES[kind], address)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_its_address_is_handed_out(kind: type[Broker]) -> None:
    """Nothing is started."""
    with given.broker(kind) as broker:
        assert isinstance(broker, kind)
        assert broker.url == ADDRESSES[kind]
        assert f":{broker.port}" in broker.url


@pytest.mark.parametrize(("kind", "name"), HARM)
def test_a_test_that_breaks_or_commands_it_is_skipped(kind: type[Broker], name: str) -> None:
    """And says which variable names the broker."""
    reason = pytest.raises(pytest.skip.Exception, match=given.VARIABLES[kind])
    with given.broker(kind) as broker, reason:
        getattr(broker, name)(*["status"] * (name in ("ctl", "tool")))


@pytest.mark.parametrize("kind", ADDRESSES)
def test_ci_takes_none(kind: type[Broker], monkeypatch: pytest.MonkeyPatch) -> None:
    """There the suite starts its own, so that nothing is skipped."""
    monkeypatch.setenv("CI", "true")
    assert not given.is_given(kind)
