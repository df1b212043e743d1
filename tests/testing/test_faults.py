"""Failures that a test asks for are those that a real broker has, and core deals with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import gearshift
from gearshift import testing
from gearshift.errors import ConnectionFailed, OutcomeUnknown


@pytest.fixture(params=["queue", "stream"])
def harness(request: pytest.FixtureRequest) -> Iterator[testing.Harness]:
    """A harness whose channels are queues, and one whose channels are streams."""
    settings = {
        "profiles": {"dev": {"backend": "memory"}},
        "channels": {
            "orders": {"semantics": request.param, "groups": ["default", "audit"]},
            "invoices": {"semantics": request.param},
        },
    }
    with testing.open(settings=settings) as opened:
        yield opened


def test_without_a_broker_a_send_fails_at_once_and_later_works(harness: testing.Harness) -> None:
    """The error is that of a send whose deadline is over, and says that nothing is stored."""
    harness.send("orders", 0)
    with harness.broker_gone():
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="nothing is stored") as caught:
                harness.send("orders", 1)
            assert caught.value.retryable
        with gearshift.open() as bus, pytest.raises(ConnectionFailed):
            bus.producer("invoices")
    harness.send("orders", 2)
    assert harness.sent("orders") == [0, 2]


def test_without_a_broker_nothing_is_delivered_and_nothing_lost(harness: testing.Harness) -> None:
    """What waits is delivered once it is back."""
    app = gearshift.App()
    seen: list[int] = []
    app.handler("orders")(seen.append)

    harness.send("orders", 1)
    harness.run(app)
    harness.send("orders", 2)
    with harness.broker_gone():
        harness.run(app)
        assert seen == [1]
    harness.run(app)
    assert seen == [1, 2]


def test_a_message_in_hand_comes_again_if_the_broker_goes(harness: testing.Harness) -> None:
    """Its settlement comes too late, and the delivery after it is marked."""
    app = gearshift.App()
    seen = []

    @app.handler("orders")
    def bill(order: int, delivery: gearshift.Delivery[int]) -> None:
        seen.append(delivery.redelivered)
        if len(seen) == 1:
            with harness.broker_gone():
                pass

    harness.send("orders", 1)
    harness.run(app)
    assert len(seen) == 2
    assert (seen[0] or False, seen[1]) == (False, True)
    assert [one.outcome for one in harness.settled("orders")] == ["stale", "ack"]


@pytest.mark.parametrize("stored", [True, False])
def test_the_outcome_of_a_send_can_be_unknown(harness: testing.Harness, stored: bool) -> None:
    """The message is stored or not; the sender cannot tell."""
    harness.lose_outcomes("invoices", stored=stored)
    with pytest.raises(OutcomeUnknown, match="may or may not be stored"):
        harness.send("invoices", 1)
    harness.send("invoices", 2)
    assert harness.sent("invoices") == ([1, 2] if stored else [2])


def test_a_lost_ack_brings_a_handled_message_again(harness: testing.Harness) -> None:
    """To the group that lost it, and not to the other."""
    app = gearshift.App()
    seen: list[tuple[str, int, bool]] = []

    @app.handler("orders")
    def bill(order: int, delivery: gearshift.Delivery[int]) -> None:
        seen.append(("bill", order, delivery.redelivered or False))

    @app.handler("orders", group="audit")
    def audit(order: int, delivery: gearshift.Delivery[int]) -> None:
        seen.append(("audit", order, delivery.redelivered or False))

    harness.lose_acks("orders")
    harness.send("orders", 7)
    harness.run(app)
    assert sorted(seen) == [("audit", 7, False), ("bill", 7, False), ("bill", 7, True)]


def test_a_settled_message_can_be_redelivered(harness: testing.Harness) -> None:
    """Under its id, to its group alone, and it does not count as sent by anybody."""
    app = gearshift.App()
    seen: list[tuple[str, str | None]] = []

    @app.handler("orders")
    def bill(delivery: gearshift.Delivery[int]) -> None:
        seen.append(("bill", delivery.id))

    @app.handler("orders", group="audit")
    def audit(delivery: gearshift.Delivery[int]) -> None:
        seen.append(("audit", delivery.id))

    first = harness.send("orders", 7).id
    harness.run(app)
    (settled,) = harness.settled("orders", "audit")
    harness.redeliver(settled)
    harness.run(app)
    assert sorted(seen) == [("audit", first), ("audit", first), ("bill", first)]
    assert harness.sent("orders") == [7]
