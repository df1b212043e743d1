"""What a proof says, and what it does not dare to say."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from prove.subject import counted_around

import gearshift
from gearshift import Delivery, aio
from gearshift.capabilities import Lease, Order
from gearshift.errors import ConfigError, UsageError
from gearshift.misfortunes import Situation, allowed
from gearshift.plugins import load
from gearshift.testing.prove import Proof, Verdict, prove

SETTINGS = {"profiles": {"p": {"backend": "memory"}}}


class Payment(msgspec.Struct):
    """A type that can be made up."""

    account: str
    cents: int


@dataclass
class Parcel:
    """Another one."""

    number: int


def proof(handle: Callable[..., Any], **options: Any) -> Proof:
    """A proof of one handler."""
    app = gearshift.App()
    app.handler("payments")(handle)
    given = {"config": SETTINGS, "profile": "kafka", "cases": 60, "examples": [1, 2]}
    return prove(app, **(given | options))


def test_what_is_awaited_around_a_handler_is_proved_with_it() -> None:
    """As in a worker: here it does a second time what the handler stands."""
    app, table = gearshift.App(), dict[str, int]()

    @app.around
    async def twice(delivery: Delivery[int]) -> AsyncIterator[None]:
        yield
        table["again"] = table.get("again", 0) + delivery.value

    @app.handler("payments")
    async def once(value: int, delivery: Delivery[int]) -> None:
        table[str(delivery.id)] = value

    found = prove(
        app, state=lambda: table, config=SETTINGS, profile="kafka", cases=60, examples=[1, 2]
    )
    assert found.verdict is Verdict.NOT_SAFE, found


def test_what_is_awaited_around_two_tasks_is_proved_with_them() -> None:
    """Where they change places, what is around one sees what the other has done."""
    app, table = counted_around(concurrency=2)
    found = prove(
        app, state=lambda: table, config=SETTINGS, profile="kafka", cases=60, examples=[1, 2]
    )
    (story,) = [one for one in found.stories if one.rule == "overlap"]
    assert story.found == "state {'begun': 1}", found


def test_a_state_in_another_order_may_only_have_to_be_sorted() -> None:
    """A story that a list tells of itself says so; a list that lacks something does not."""
    done: list[int] = []

    def handle(value: int, delivery: Delivery[int]) -> None:
        if value not in done:
            done.append(value)

    story = proof(handle, state=lambda: done).stories[0]
    assert story.rule == "reordered"
    assert story.help.startswith("return state() sorted if its order does not matter; else let")
    assert proof(handle, state=lambda: sorted(done)).verdict is Verdict.SAFE


def test_an_unknown_profile_may_be_a_backend() -> None:
    """Then its name alone would do, so the error names those that are installed."""
    with pytest.raises(ConfigError) as caught:
        proof(lambda value: None, profile="kafkka")
    assert str(caught.value.hint).startswith("Known: p, embedded; installed"), caught.value.hint
    assert "kafka" in str(caught.value.hint)


def test_what_was_not_tried_is_not_listed() -> None:
    """A misfortune that only repeats one with a story is not shown as one that was stood."""
    table = {"total": 0}

    def add(value: int) -> None:
        table["total"] += value

    found = proof(add, state=lambda: table)
    assert [story.rule for story in found.stories] == ["lost ack"], found
    assert "lost ack" in found.rules
    assert not {"crash after", "crash inside", "duplicate"} & set(found.rules)


def test_without_a_state_it_is_never_safe() -> None:
    """A handler whose effects cannot be seen is not judged by what it does not send."""
    found = proof(lambda value: None)
    assert found.verdict is Verdict.CANNOT_BE_SAID
    assert "state()" in found.sentence


def test_a_state_that_never_moves_shows_nothing() -> None:
    """Nor is one whose state has nothing to do with its messages."""
    assert proof(lambda value: None, state=lambda: 1).verdict is Verdict.CANNOT_BE_SAID


def test_a_state_that_is_not_begun_anew_is_told() -> None:
    """What is left of one case would be taken for an effect of the next."""
    numbers = itertools.count()
    found = proof(lambda value: None, state=lambda: next(numbers))
    assert found.verdict is Verdict.CANNOT_BE_SAID
    assert "reset()" in found.sentence


def test_chance_is_not_taken_for_a_fault() -> None:
    """A handler that gives each run a new number is not proved, and not blamed."""
    numbers, table = itertools.count(), dict[str | None, int]()

    def handle(value: int, delivery: Delivery[int]) -> None:
        table[delivery.id] = next(numbers)

    found = proof(handle, state=lambda: table)
    assert found.verdict is Verdict.CANNOT_BE_SAID
    assert "undisturbed" in found.sentence


def test_handlers_of_batches_are_not_called_safe() -> None:
    """They get one message at a time, which shows too little."""
    app, table = gearshift.App(), dict[str | None, int]()

    @app.handler("payments", batch=10)
    def handle(deliveries: list[Delivery[int]]) -> None:
        table.update((one.id, one.value) for one in deliveries)

    found = prove(
        app, profile="kafka", state=lambda: table, examples=[1], config=SETTINGS, cases=60
    )
    assert found.verdict is Verdict.CANNOT_BE_SAID


@pytest.mark.parametrize("kind", [Payment, Parcel])
def test_messages_are_made_up_of_the_handlers_type(kind: type) -> None:
    """Without examples there are values of the annotated type."""
    got: list[str] = []

    def handle(value: Any) -> None:
        got.append(type(value).__name__)

    handle.__annotations__["value"] = kind
    found = proof(handle, state=lambda: got, examples=None)
    assert found.stories[0].rule == "lost ack"
    assert kind.__name__ in found.stories[0].found


def test_what_cannot_be_made_up_is_asked_for() -> None:
    """A handler of anything needs examples."""
    with pytest.raises(UsageError, match="examples"):
        proof(lambda value: None, examples=None)


def test_what_handlers_send_goes_nowhere() -> None:
    """A bus that a handler opens, even one for a broker that is not there, keeps what is sent."""
    table = dict[str | None, int]()

    def handle(value: int, delivery: Delivery[int]) -> None:
        table[delivery.id] = value
        with gearshift.open("amqp://nowhere.invalid") as bus:
            bus.producer("mails").send(value, id=f"{delivery.id}-mail")

    assert proof(handle, state=lambda: table).verdict is Verdict.SAFE


def by_producer(value: int, mails: Annotated[gearshift.Producer, "mails"]) -> None:
    mails.send(value)


async def by_async_producer(value: int, mails: Annotated[aio.Producer, "mails"]) -> None:
    await mails.send(value)


def by_bus(value: int, bus: gearshift.Bus) -> None:
    bus.send("mails", value)


async def by_async_bus(value: int, bus: aio.Bus) -> None:
    await bus.send("mails", value)


@pytest.mark.parametrize("handle", [by_producer, by_async_producer, by_bus, by_async_bus])
def test_a_handler_is_given_what_it_sends_by(handle: Callable[..., Any]) -> None:
    """What it asks for besides the message is there, and what it sends is compared."""
    found = proof(handle)
    assert found.stories[0].found == "sent 1 to mails, 2 times under different ids"


@pytest.mark.parametrize("backend", ["memory", "sqlite", "rabbitmq", "kafka", "redis"])
def test_only_what_is_declared_may_happen(backend: str) -> None:
    """A misfortune whose capability is declared away is not among those that are tried."""
    for semantics, capabilities in load(backend).capabilities.items():
        situation = Situation(capabilities=capabilities, semantics=semantics)
        names = {rule.name for rule in allowed(situation)}
        for name in ("lost ack", "crash after", "crash inside", "duplicate"):
            assert (name in names) == capabilities.redelivery
        assert ("taken twice" in names) == (capabilities.lease is Lease.FIXED)
        is_late = capabilities.native_retry and capabilities.order is not Order.KEY
        assert ("returns late" in names) == is_late
        assert ("unflagged" in names) == (capabilities.redelivered.value != "exact")
