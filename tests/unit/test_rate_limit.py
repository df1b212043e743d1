"""So many and no more in a time, evenly spread, on a clock that stands still."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gearshift
from gearshift._core.consuming.rate_limit import RateLimit, parse_rate
from gearshift._core.consuming.settlements import QueueSettlements
from gearshift._core.consuming.window import DeliveryWindow
from gearshift.driver import Received
from gearshift.errors import ConfigError
from gearshift.message import Message


@pytest.mark.parametrize(
    ("text", "per_second"), [("100/s", 100.0), ("2.5/s", 2.5), ("30/min", 0.5), ("1800/h", 0.5)]
)
def test_a_rate_is_a_number_and_a_time(text: str, per_second: float) -> None:
    """Messages a second."""
    assert parse_rate(text) == per_second


@pytest.mark.parametrize(
    "text", ["", "100", "100/", "/s", "100/d", "100 / s", "-1/s", "0/s", "nan/s", "1e9/s", 5, None]
)
def test_anything_else_is_refused_with_examples(text: Any) -> None:
    """The text has the value, the hint how to write it."""
    with pytest.raises(ConfigError, match="is no rate") as caught:
        parse_rate(text)
    assert repr(text) in str(caught.value)
    assert "100/s" in str(caught.value.hint)


@pytest.mark.parametrize("option", ["handler", "channel"])
def test_a_misspelt_rate_is_refused_at_import(option: str) -> None:
    """Not when the first message comes."""
    refused = {
        "handler": lambda: gearshift.App().handler("orders", rate_limit="fast"),
        "channel": lambda: gearshift.config.ChannelSettings(rate_limit="fast"),
    }
    with pytest.raises(ConfigError, match="'fast' is no rate"):
        refused[option]()


def test_one_message_may_always_go_and_the_next_waits_its_time() -> None:
    """At less than ten a second there is no burst."""
    limit = RateLimit(2.0)
    assert limit.allowance(100.0) == 1
    limit.spend(1)
    assert limit.allowance(100.4) == 0
    assert limit.wait_s() == pytest.approx(0.1)
    assert limit.allowance(100.5) == 1


def test_what_was_not_used_is_not_saved_up() -> None:
    """After any pause only a tenth of a second's worth goes at once."""
    limit = RateLimit(100.0)
    assert limit.allowance(0.0) == 10
    limit.spend(10)
    assert limit.allowance(3600.0) == 10


@given(
    per_second=st.floats(0.1, 10_000),
    steps=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 2000)), max_size=50),
)
def test_no_time_sees_more_than_its_share(
    per_second: float, steps: list[tuple[float, int]]
) -> None:
    """Whoever asks when and for how many: burst plus rate times time is never exceeded."""
    limit, now, gone = RateLimit(per_second), 0.0, 0
    for pause, wanted in steps:
        now += pause
        taken = min(wanted, limit.allowance(now))
        limit.spend(taken)
        gone += taken
        assert gone <= max(1.0, per_second / 10) + per_second * now + 1e-3


class World:
    """A window with ten waiting messages and a limit of two a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.window = DeliveryWindow(10, rate_limit=RateLimit(2.0))
        self.window.connect(QueueSettlements(cumulative=False))
        self.window.add([Received(Message(b"m"), number) for number in range(10)])

    def take(self) -> list[int]:
        return [entry.token for entry in self.window.pop(100, 1, self.now)]


def test_a_consumer_hands_out_as_many_as_its_limit_allows() -> None:
    """Nothing is lost: what may not go yet waits, in order."""
    world = World()
    handed = []
    for _ in range(5):
        handed.append(world.take())
        world.now += 0.25
    assert handed == [[0], [], [1], [], [2]]


def test_a_retried_message_counts_too() -> None:
    """It comes first when it is due, and only when the limit allows."""
    world = World()
    (first,) = world.window.pop(1, 1, world.now)
    world.window.hold(first, 0.1, world.now)
    world.now = 0.2
    assert world.take() == []
    world.now = 0.5
    assert world.take() == [0]


def test_waiting_for_the_limit_ends_when_it_allows_one() -> None:
    """The wait is as long as the limit says, also while a retry is due already."""
    world = World()
    (first,) = world.window.pop(1, 1, world.now)
    world.window.hold(first, 0.0, world.now)
    assert world.take() == []
    assert world.window.next_due(world.now) == pytest.approx(0.5)


@pytest.mark.parametrize("where", ["channel", "consumer"])
def test_the_limit_comes_from_the_channel_or_the_consumer(tmp_path: Any, where: str) -> None:
    """One a day: the first message comes, the second does not."""
    file = tmp_path / "gearshift.toml"
    in_channel = 'rate_limit = "1/h"' if where == "channel" else ""
    file.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "memory"\n[channels.orders]\n{in_channel}\n'
    )
    with gearshift.open(file) as bus:
        bus.producer("orders").send_many([1, 2])
        option = {"rate_limit": "1/h"} if where == "consumer" else {}
        consumer = bus.consumer("orders", **option)
        assert [delivery.value for delivery in consumer.receive(10, timeout_s=10)] == [1]
        assert consumer.receive(10, timeout_s=0.1) == []
