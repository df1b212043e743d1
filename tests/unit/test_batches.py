"""Handlers of batches: what they may take, and what the end of one means for each message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

import gearshift
from gearshift import BatchFailed, Delivery, Reject, Retry, errors
from gearshift.worker.batches import apart, endings
from gearshift.worker.call import Call
from gearshift.worker.dispatch import Ending, ending_of


class Order(msgspec.Struct):
    n: int


class Received:
    """A delivery, as far as a handler's call needs it."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body

    @property
    def value(self) -> Any:
        if self.body == b"bad":
            raise errors.DecodeError("bad")
        if self.body == b"broken":
            raise RuntimeError("codec")
        return self.body


def received(*bodies: bytes | None) -> list[Any]:
    return [Received(body) for body in bodies]


# ── what it takes ──


def of_values(orders: list[Order]) -> None: ...


def of_a_sequence(orders: Sequence[Order | None]) -> None: ...


def of_deliveries(deliveries: list[Delivery[Order]]) -> None: ...


async def of_both(deliveries: list[Delivery], orders: list[Order]) -> None: ...


def one_order(order: Order) -> None: ...


def one_delivery(delivery: Delivery) -> None: ...


def unannotated(orders) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "value_type", "parameters"),
    [
        (of_values, Order, ("value",)),
        (of_a_sequence, Order | None, ("value",)),
        (of_deliveries, Order, ("delivery",)),
        (of_both, Order, ("delivery", "value")),
    ],
)
def test_a_batch_is_a_list_of_values_or_deliveries(
    function: Callable[..., Any], value_type: Any, parameters: tuple[str, ...]
) -> None:
    """Its elements' type is what bodies decode to."""
    call = Call.of(function, is_batch=True)
    assert (call.value_type, call.parameters) == (value_type, parameters)


@pytest.mark.parametrize("function", [one_order, one_delivery, unannotated])
def test_a_batch_handler_without_a_list_is_refused_at_registration(
    function: Callable[..., Any],
) -> None:
    """The error names the parameter, and the signature that would do."""
    with pytest.raises(errors.UsageError) as caught:
        gearshift.App().handler("orders", batch=10)(function)
    assert "is not annotated as a list" in str(caught.value)
    assert f"def {function.__name__}(values: list[Order])" in str(caught.value.hint)


def test_a_list_of_deliveries_needs_batches() -> None:
    """A handler of one message is told of the keyword that it lacks."""
    with pytest.raises(errors.UsageError, match="takes a list of deliveries") as caught:
        gearshift.App().handler("orders")(of_deliveries)
    assert "batch=" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"batch": 0}, "batch 0 is out of range"),
        ({"batch": True}, "batch True is out of range"),
        ({"linger_s": 1.0}, "linger_s is for batches"),
        ({"batch": 5, "linger_s": -1.0}, "linger_s -1.0 is out of range"),
        ({"batch": 5, "linger_s": float("nan")}, "linger_s nan is out of range"),
        ({"batch": 50, "prefetch": 49}, "prefetch 49 is less than batch 50"),
        ({"batch": 5000, "concurrency": 3}, "more than 10000 messages at once"),
    ],
)
def test_batches_that_cannot_be_gathered_are_refused(options: dict[str, Any], why: str) -> None:
    """At registration, in words."""
    with pytest.raises(errors.UsageError, match=why):
        gearshift.App().handler("orders", **options)


def test_a_call_gives_lists_in_the_functions_order() -> None:
    """Of values and of deliveries, which belong together."""
    given: list[Any] = []

    def handle(deliveries: list[Delivery], orders: list[Order]) -> None:
        given.extend([deliveries, orders])

    batch = received(b"1", b"2")
    Call.of(handle, is_batch=True)(batch)
    assert given == [batch, [b"1", b"2"]]


def test_what_cannot_be_decoded_ends_alone() -> None:
    """The handler is given the others; a codec that breaks is retried as it would be alone."""
    good, bad, tombstone, broken = batch = received(b"1", b"bad", None, b"broken")
    able, unable = apart(Call.of(of_values, is_batch=True), batch)
    assert able == [good]
    assert [delivery for delivery, _ in unable] == [bad, tombstone, broken]
    assert [ending.action for _, ending in unable] == ["reject", "reject", "retry"]


def test_a_handler_of_untyped_deliveries_gets_them_all() -> None:
    """It may want the bodies and nothing else."""

    def handle(deliveries: list[Delivery]) -> None: ...

    batch = received(b"bad")
    assert apart(Call.of(handle, is_batch=True), batch) == (batch, [])


# ── how it ends ──


def ended(error: BaseException, batch: Sequence[Any]) -> list[tuple[str, str]]:
    return [(one.action, one.reason) for one in endings(ending_of(error), batch)]


def test_returning_acks_all() -> None:
    """However many there are."""
    batch = received(b"1", b"2")
    assert [one.action for one in endings(Ending(action="ack"), batch)] == ["ack", "ack"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no"), "ValueError: no"),
        (Reject("never"), "Reject: never"),
        (errors.DecodeError("bad"), "DecodeError: bad"),
    ],
)
def test_what_is_raised_for_several_rejects_none(error: Exception, reason: str) -> None:
    """It does not say which of them it is about, so all come again."""
    assert ended(error, received(b"1", b"2")) == [("retry", reason)] * 2


def test_a_batch_of_one_ends_as_a_message_does() -> None:
    """There is no doubt which message it is about."""
    assert ended(Reject("never"), received(b"1")) == [("reject", "never")]
    assert ended(errors.DecodeError("bad"), received(b"1")) == [("reject", "bad")]


def test_retry_is_for_all() -> None:
    """With its delay."""
    batch = received(b"1", b"2")
    assert [one.delay_s for one in endings(ending_of(Retry(60)), batch)] == [60, 60]


def test_a_partial_failure_names_its_messages() -> None:
    """By place or by delivery, each with its own error; the others are acked."""
    batch = received(b"0", b"1", b"2", b"3")
    error = BatchFailed({1: ValueError("no"), batch[3]: Reject("never")})
    assert ended(error, batch) == [
        ("ack", ""), ("retry", "ValueError: no"), ("ack", ""), ("reject", "never"),
    ]  # fmt: skip
    assert str(error) == "2 failed, the first with ValueError: no"


@pytest.mark.parametrize("key", [2, -1, Received(b"of another batch")])
def test_a_partial_failure_that_names_a_stranger_fails_all(key: Any) -> None:
    """Nobody knows which were meant, so none is acked."""
    batch = received(b"0", b"1")
    found = ended(BatchFailed({key: ValueError("no")}), batch)
    assert [action for action, _ in found] == ["retry", "retry"]
    assert "which is not in the batch" in found[0][1]


@pytest.mark.parametrize("failed", [{}, {0: "no error"}, [ValueError()], ValueError()])
def test_a_partial_failure_names_errors(failed: Any) -> None:
    """One that names nothing, or what cannot be raised, is refused where it is made."""
    with pytest.raises(errors.UsageError, match="BatchFailed is given"):
        BatchFailed(failed)
