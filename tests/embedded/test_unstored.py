"""A retry or a dead letter that the backend refuses to store: kept, counted, told, never lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from support.waiting import until

import gearshift
from gearshift import App, Reject, Worker
from gearshift.driver import (
    OnOutcomes,
    Outcome,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
    Stored,
    Unstored,
)
from gearshift.embedded.memory.producer import Producer
from gearshift.embedded.memory.queue import QueueConsumer
from gearshift.errors import PublishRefused
from gearshift.message import Message
from gearshift.telemetry import health


class Refusing:
    """The memory backend of a server that stores no retries, no dead letters, or neither."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.retries = self.dead_letters = False
        self.refused = 0
        returned: list[Received] = []
        receive, settle, submit = QueueConsumer.receive, QueueConsumer.settle, Producer.submit

        def receiving(driver: QueueConsumer, most: int, timeout_s: float) -> Sequence[Received]:
            if returned:
                found = list(returned)
                returned.clear()
                return found
            return receive(driver, most, timeout_s)

        def settling(
            driver: QueueConsumer, work: Sequence[SettleRequest]
        ) -> Sequence[SettleFailure]:
            for one in work:
                if self.retries and one.settlement is Settlement.RETRY:
                    self.refused += 1
                    assert one.message is not None
                    again = Unstored(PublishRefused("a quota"), one.delay_s)
                    attempt = (one.attempt or 0) + 1
                    returned.append(
                        Received(one.message, one.token, None, attempt, True, unstored=again)
                    )
            ok = [one for one in work if not (self.retries and one.settlement is Settlement.RETRY)]
            return settle(driver, ok)

        def submitting(
            driver: Producer, messages: Sequence[Message], on_outcomes: OnOutcomes
        ) -> None:
            if self.dead_letters and driver._channel.name.endswith(".dead"):
                self.refused += len(messages)
                refusal = PublishRefused("the queue is full")
                on_outcomes([Outcome(n, Stored.NO, None, refusal) for n in range(len(messages))])
            else:
                submit(driver, messages, on_outcomes)

        patch.setattr(QueueConsumer, "receive", receiving)
        patch.setattr(QueueConsumer, "settle", settling)
        patch.setattr(Producer, "submit", submitting)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    return Refusing(monkeypatch)


@pytest.fixture(params=["queue", "stream"])
def bus(request: pytest.FixtureRequest) -> Iterator[gearshift.Bus]:
    channel: dict[str, Any] = {"semantics": request.param, "max_attempts": 3}
    channel |= {"retry_delay_s": 0.01, "dead_letter": "orders.dead"}
    settings = {
        "profiles": {"m": {"backend": "memory"}},
        "channels": {"orders": channel, "orders.dead": {"semantics": "queue"}},
    }
    with gearshift.open(settings, profile="m") as opened:
        yield opened


def handle(bus: gearshift.Bus, how: Exception) -> tuple[list[int], Worker]:
    """Run a handler that ends so; the attempts that it has had."""
    app, attempts = App(), []

    @app.handler("orders")
    def fail(delivery: gearshift.Delivery[Any]) -> None:
        attempts.append(delivery.attempt)
        raise how

    worker = Worker(app, bus)
    worker.start()
    bus.producer("orders").send({"n": 1}, key="k")
    return attempts, worker


def died(bus: gearshift.Bus) -> dict[str, Any]:
    """The headers of the one dead letter."""
    (dead,) = bus.consumer("orders.dead").receive(timeout_s=20)
    return dict(dead.headers)


def test_retries_that_are_not_stored_count_and_end(bus: gearshift.Bus, refusing: Refusing) -> None:
    """Attempts rise to ``max_attempts``, then it is a dead letter, as if they had been stored."""
    refusing.retries = True
    attempts, worker = handle(bus, ValueError("broken"))
    assert died(bus)["dead-letter-attempts"] == 3
    worker.stop()
    assert attempts == [1, 2, 3]


def test_a_dead_letter_that_is_not_stored_is_tried_again_and_not_handled(
    bus: gearshift.Bus, refusing: Refusing
) -> None:
    """Health says so; when there is room again it is stored with its first reason, once."""
    refusing.retries = refusing.dead_letters = True
    attempts, worker = handle(bus, Reject("no such order"))
    assert until(lambda: refusing.refused >= 3)
    assert until(lambda: "the queue is full" in " ".join(health.degraded(bus)))
    assert health.problems(bus) == []
    assert bus.stats().receiving[0].unstored == 1
    refusing.dead_letters = False
    assert died(bus)["dead-letter-reason"] == "no such order"
    assert until(lambda: not health.degraded(bus))
    worker.stop()
    (orders,) = (one for one in bus.stats().receiving if one.channel == "orders")
    assert attempts == [1]
    assert (orders.delivered, orders.settled["reject"]) == (1, 1)


def test_what_is_kept_comes_again_after_a_close(bus: gearshift.Bus, refusing: Refusing) -> None:
    """It was never settled, so it is lost with nobody."""
    refusing.dead_letters = True
    _, worker = handle(bus, Reject("no such order"))
    assert until(lambda: refusing.refused >= 1)
    worker.stop()
    (again,) = bus.consumer("orders").receive(timeout_s=20)
    assert again.value == {"n": 1}
