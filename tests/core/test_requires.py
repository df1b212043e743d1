"""What code and handlers require of a broker, and consumers that only look."""

from __future__ import annotations

from typing import Any

import pytest

import gearshift
from gearshift import Worker
from gearshift.errors import ConfigError, NotSupported


def test_code_states_what_it_requires(bus: gearshift.Bus) -> None:
    """A requirement that is met changes nothing; one that is not is refused before any effect."""
    bus.producer("orders", requires=["redelivery", "order=key"]).close()
    bus.consumer("orders", group="billing", requires=["dead_letter"]).close()
    for make in (bus.producer, bus.consumer):
        with pytest.raises(
            NotSupported, match="requires replay, but a queue here has replay=false"
        ):
            make("other", requires=["replay"], create=True)
    assert not bus.exists("other")


@pytest.mark.parametrize("requires", ["replay", ["repaly"], ["order=best"], [7]])
def test_a_requirement_that_is_none_is_refused(bus: gearshift.Bus, requires: Any) -> None:
    """A misspelt one would protect nobody; handlers are checked at import."""
    with pytest.raises(ConfigError) as caught:
        bus.producer("orders", requires=requires)
    assert caught.value.hint
    with pytest.raises(ConfigError):
        gearshift.App().handler("orders", requires=requires)


def test_a_handler_states_what_it_requires(bus: gearshift.Bus) -> None:
    """The worker does not start where it is missing."""
    app = gearshift.App()
    app.handler("orders", group="billing", requires=["replay"])(lambda value: None)
    with pytest.raises(NotSupported, match="requires replay"):
        Worker(app, bus).start()


def test_an_inspector_gives_back_without_a_word(
    bus: gearshift.Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """What it looked at waits as before."""
    with bus.producer("orders") as orders:
        receipt = orders.send(1)
    for _ in range(3):
        with bus.inspect("orders", group="billing") as inbox:
            assert [delivery.id for delivery in inbox.receive(timeout_s=10)] == [receipt.id]
    assert not [each for each in caplog.records if each.name == "gearshift.consumer"]
