"""A delivery in the user's hands: settled once, and only what has succeeded counts."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from gearshift import errors
from gearshift._core.consuming.entry import Entry
from gearshift._core.listeners import Listeners
from gearshift.delivery import Delivery
from gearshift.driver import Received
from gearshift.message import Message


class Settler:
    """A subscription that settles everything, or raises ``error``; it may be held up."""

    policy = SimpleNamespace(channel="orders", group="billing")

    listeners = Listeners()

    def __init__(self) -> None:
        self.settled: list[str] = []
        self.error: Exception | None = None
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def ack(self, entry: Entry) -> str:
        return self._done("ack")

    def retry(self, entry: Entry, delay_s: float | None, reason: str | None) -> str:
        return self._done("retry")

    def reject(self, entry: Entry, reason: str) -> str:
        return self._done("reject")

    def _done(self, outcome: str) -> str:
        self.entered.set()
        assert self.go_on.wait(10)
        if self.error is not None:
            raise self.error
        self.settled.append(outcome)
        return outcome


@pytest.fixture
def settler() -> Settler:
    return Settler()


@pytest.fixture
def delivery(settler: Settler) -> Delivery[Any]:
    subscription: Any = settler
    return Delivery(subscription, Entry.of(Received(Message(b"x"), 1, None, 1)))


@pytest.mark.parametrize("delay_s", [-1, float("nan"), float("inf"), 604801, "1"])
def test_a_refused_delay_settles_nothing(
    delivery: Delivery[Any], settler: Settler, delay_s: Any
) -> None:
    """The delivery can still be settled, here with an ack."""
    with pytest.raises(errors.UsageError, match="delay_s"):
        delivery.retry(delay_s)
    assert (settler.settled, delivery.outcome) == ([], None)
    delivery.ack()
    assert delivery.outcome == "ack"


def test_outcome_is_none_until_settling_has_succeeded(
    delivery: Delivery[Any], settler: Settler
) -> None:
    """A stale delivery was not acked, so it says so, and a second ack is stale as well."""
    settler.error = errors.StaleDelivery("its lease is over")
    for _ in range(2):
        with pytest.raises(errors.StaleDelivery):
            delivery.ack()
        assert delivery.outcome is None


def test_a_delivery_is_settled_once(delivery: Delivery[Any], settler: Settler) -> None:
    """The second attempt is refused, and says how the first one ended."""
    delivery.reject("never")
    with pytest.raises(errors.AlreadySettled, match=r"with reject\(\)"):
        delivery.ack()
    assert settler.settled == ["reject"]


def test_of_two_threads_one_settles(delivery: Delivery[Any], settler: Settler) -> None:
    """While one is at it the other is refused."""
    settler.go_on.clear()
    first = threading.Thread(target=delivery.ack)
    first.start()
    try:
        assert settler.entered.wait(10)
        with pytest.raises(errors.AlreadySettled, match="another thread"):
            delivery.reject("never")
    finally:
        settler.go_on.set()
        first.join()
    assert settler.settled == ["ack"]
