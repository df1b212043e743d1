"""The parts of a Kafka queue that need no broker."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gearshift.driver import ChannelSpec
from gearshift.message import Message, Semantics
from gearshift_kafka.names import groups_among
from gearshift_kafka.native import NativeSettings
from gearshift_kafka.queue.delays import STEPS, Past, step_of
from gearshift_kafka.queue.lane import Lane, Membership, Source
from gearshift_kafka.settings import ChannelSettings


@pytest.mark.parametrize(
    ("delay_s", "step"), [(0.0, 0), (0.1, 0), (0.11, 1), (1.0, 4), (60.0, 10), (604_800.0, 23)]
)
def test_a_delay_waits_in_the_first_step_that_is_as_long(delay_s: float, step: int) -> None:
    """Steps double from 0.1 s, and the longest delay of all fits into the last."""
    assert step_of(delay_s) == step < STEPS


def test_the_helper_topics_of_a_dead_letter_channel_are_not_its_sources() -> None:
    """Deleting ``orders`` must not delete what belongs to ``orders.dead``."""
    channel = ChannelSpec(
        name="orders", semantics=Semantics.QUEUE, groups=(), native=ChannelSettings()
    )
    names = [
        f"{group}.{end}" for group in ("orders.g", "orders.dead.g") for end in ("retry", "delay")
    ]
    assert groups_among(channel, [*names, "orders", "orders.half.retry", "other.g.retry"]) == ["g"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("share.acknowledgement.mode", "nonsense", "is not yours to set"),
        ("max.poll.records", 7, "use prefetch of the channel"),
        ("share.auto.offset.reset", "latest", "is a setting of the broker"),
        ("auto.offset.reset", "latest", "is not yours to set"),
        ("session.timeout.ms", 6000, "share consumer"),
        ("fetch.wait.max.mss", 1, "did you mean 'fetch.wait.max.ms'"),
    ],
)
def test_settings_of_the_share_consumer_are_checked(
    key: str, value: str | int, reason: str
) -> None:
    """What would break a promise, or what the client refuses, is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        NativeSettings(share={key: value})


def test_what_has_lost_its_lock_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that stood still would store again what others have by now."""
    now = 100.0
    monkeypatch.setattr("gearshift_kafka.queue.lane.time", SimpleNamespace(monotonic=lambda: now))
    record = SimpleNamespace(error=lambda: None, partition=lambda: 0, offset=lambda: 7)
    consumer: Any = SimpleNamespace(subscribe=lambda topics: None, poll=lambda timeout_s: [record])
    lane = Lane(
        consumer,
        "t",
        size=1,
        lock_s=30.0,
        beginnings={},
        membership=Membership(),
        source=Source.CHANNEL,
    )
    (polled,) = lane.poll(0.1)
    token, message = lane.token(polled), Message(b"m")
    lane.remember(token, message, Past())
    now = 129.9
    assert lane.holds(token)
    now = 130.0
    assert not lane.holds(token)
    assert lane.recall(token) is None


def test_a_member_is_drained_once_each_broker_has_answered_in_vain() -> None:
    """The first fetch that is counted may be the one that brought the last records."""
    member = Membership()

    def tell(*fetches: int) -> bool:
        brokers = {str(node): {"req": {"ShareFetch": n}} for node, n in enumerate(fetches)}
        member.on_statistics(json.dumps({"cgrp": {"assignment_size": 1}, "brokers": brokers}))
        return member.is_drained

    assert not tell(0, 0)  # no broker has been asked
    assert [tell(2, 5), tell(5, 6), tell(5, 8)] == [False, False, True]
    member.came_some()
    assert [tell(6, 8), tell(8, 11), tell(9, 11)] == [False, False, True]
