"""A harness delivers to an app's handlers until all is quiet, without a broker and without time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import gearshift
from gearshift import testing
from gearshift.errors import UsageError


class Order(msgspec.Struct):
    """An order, as handlers take it."""

    n: int


def channels(semantics: str, **orders: Any) -> dict[str, Any]:
    """Settings of a channel ``orders`` and a channel ``invoices``."""
    return {
        "profiles": {"dev": {"backend": "memory"}},
        "channels": {"orders": {"semantics": semantics, **orders}, "invoices": {}},
    }


@pytest.fixture(params=["queue", "stream"])
def harness(request: pytest.FixtureRequest) -> Any:
    """A harness whose orders are a queue, and one whose orders are a stream."""
    with testing.open(settings=channels(request.param)) as opened:
        yield opened


def test_a_handler_is_given_what_was_sent_and_what_it_sends_is_seen(
    harness: testing.Harness,
) -> None:
    """Messages of one key in their order; plain values can be compared."""
    app = gearshift.App()

    @app.handler("orders")
    def bill(order: Order) -> None:
        harness.send("invoices", {"order": order.n})

    for n in range(5):
        harness.send("orders", {"n": n}, key="ada")
    harness.run(app)

    assert harness.sent("invoices") == [{"order": n} for n in range(5)]
    assert harness.sent("orders", Order) == [Order(n) for n in range(5)]
    assert [one.key for one in harness.messages("orders")] == ["ada"] * 5
    assert [(one.value, one.outcome) for one in harness.settled("orders")] == [
        ({"n": n}, "ack") for n in range(5)
    ]


def test_a_batch_is_what_there_is(harness: testing.Harness) -> None:
    """It waits for nothing, as nothing more can come; those that failed come again, each alone."""
    app = gearshift.App()
    batches: list[list[int]] = []

    @app.handler("orders", batch=10, linger_s=60.0)
    def bill(orders: list[Order]) -> None:
        batches.append([order.n for order in orders])
        if len(orders) == 5:
            raise gearshift.BatchFailed({3: gearshift.Retry(60), 4: gearshift.Retry(30)})

    for n in range(15):
        harness.send("orders", {"n": n}, key="ada")
    harness.run(app)

    assert batches[:2] == [list(range(10)), list(range(10, 15))]
    assert sorted(batches[2:]) == [[13], [14]]
    assert [one.outcome for one in harness.settled("orders")] == ["ack"] * 13 + ["retry"] * 2 + [
        "ack"
    ] * 2


def test_a_delay_takes_no_time(harness: testing.Harness) -> None:
    """The clock moves to where the next thing is due, and no further."""
    app = gearshift.App()
    attempts = []

    @app.handler("orders")
    def bill(order: Order, delivery: gearshift.Delivery[Order]) -> None:
        attempts.append((order.n, delivery.attempt, harness.clock.passed_s))
        if order.n == 1 and delivery.attempt < 3:
            raise gearshift.Retry(3600)

    harness.send("orders", {"n": 1})
    harness.send("orders", {"n": 2})
    harness.run(app)

    assert sorted(attempts) == [(1, 1, 0.0), (1, 2, 3600.0), (1, 3, 7200.0), (2, 1, 0.0)]
    assert [(one.attempt, one.delay_s) for one in harness.retried("orders")] == [
        (1, 3600.0), (2, 3600.0),
    ]  # fmt: skip
    assert harness.clock.passed_s == 7200.0


def test_only_so_much_time_passes_if_asked(harness: testing.Harness) -> None:
    """What is due later stays for the next run, with its attempts."""
    app = gearshift.App()
    seen = []

    @app.handler("orders")
    def bill(order: Order, delivery: gearshift.Delivery[Order]) -> None:
        seen.append(delivery.attempt)
        if delivery.attempt == 1:
            raise gearshift.Retry(3600)

    harness.send("orders", {"n": 1})
    harness.run(app, for_s=60)
    assert (seen, harness.clock.passed_s) == ([1], 60.0)

    harness.clock.advance(3539)
    harness.run(app, for_s=0)
    assert seen == [1]

    harness.clock.advance(1)
    harness.run(app, for_s=0)
    assert (seen, harness.clock.passed_s) == ([1, 2], 3600.0)


def test_an_error_of_a_handler_is_raised(harness: testing.Harness) -> None:
    """Else a test would pass though its handler is broken."""
    app = gearshift.App()

    @app.handler("orders")
    def bill(order: Order) -> None:
        raise ZeroDivisionError("not today")

    harness.send("orders", {"n": 1})
    with pytest.raises(ZeroDivisionError, match="not today"):
        harness.run(app)
    assert [one.outcome for one in harness.settled("orders")] == ["retry"]


def test_attempts_and_dead_letters_are_those_of_the_channel() -> None:
    """The user's ``max_attempts`` and delays apply, without jitter."""
    app = gearshift.App()

    @app.handler("orders")
    def bill(order: Order) -> None:
        raise ZeroDivisionError("not today")

    settings = channels("queue", max_attempts=3, retry_delay_s=10, dead_letter="lost")
    with testing.open(settings=settings) as harness:
        harness.send("orders", {"n": 1})
        harness.run(app, raise_on_error=False)

        assert [one.delay_s for one in harness.retried("orders")] == [10.0, 20.0]
        (letter,) = harness.dead_letters("orders")
        assert letter.value == {"n": 1}
        assert letter.reason == "gave up after 3 attempts: ZeroDivisionError: not today"
        assert harness.sent("lost") == [{"n": 1}]
        assert [one.outcome for one in harness.settled("orders")] == ["retry", "retry", "reject"]


def test_handlers_that_are_never_quiet_are_an_error(harness: testing.Harness) -> None:
    """In place of a test that does not end."""
    app = gearshift.App()

    @app.handler("orders")
    def again(order: Order) -> None:
        harness.send("orders", {"n": order.n + 1})

    harness.send("orders", {"n": 0})
    with pytest.raises(UsageError, match="not quiet after 20 deliveries"):
        harness.run(app, max_deliveries=20)
