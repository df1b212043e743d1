"""What every user of the portable layer relies on, on both embedded backends."""

from __future__ import annotations

import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
import pytest
from support.buses import OpenBus
from support.waiting import PATIENCE_S, drain, take

import gearshift
from gearshift import Capabilities, Start, errors
from gearshift._core.consuming.user_side import UserSide
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift.consumer import ConsumerOptions
from gearshift.driver import ChannelSpec
from gearshift.embedded.memory import admin as memory
from gearshift.embedded.sqlite import admin as sqlite
from gearshift.message import Fields

from .conftest import CHANNELS


class Order(msgspec.Struct):
    n: int


@dataclass
class Plain:
    n: int


@pytest.mark.parametrize("channel", ["orders", "events"])
def test_attempts_are_bounded_and_end_in_the_dead_letters(bus: gearshift.Bus, channel: str) -> None:
    """The third failure of three rejects; the dead letter tells its story; the group goes on."""
    producer = bus.producer(channel)
    with bus.consumer(channel, group="audit") as consumer:
        consumer.ready()
        sent = producer.send({"n": 1}, key="k")
        producer.send({"n": 2}, key="k")
        outcomes = []
        values = []
        for _ in range(4):
            (delivery,) = take(consumer, 1)
            values.append(delivery.value["n"])
            if delivery.value["n"] == 1:
                delivery.retry()
                outcomes.append(delivery.outcome)
            else:
                delivery.ack()
        assert drain(consumer, 0) == []
    assert outcomes == ["retry", "retry", "reject"]
    assert values.count(2) == 1
    with bus.consumer(f"{channel}.dead") as dead:
        letter = dead.receive(timeout_s=30)[0]
        letter.ack()
        assert letter.id == sent.id
        assert letter.value == {"n": 1}
        assert letter.headers["dead-letter-channel"] == channel
        assert letter.headers["dead-letter-attempts"] == 3
        assert "3 attempts" in str(letter.headers["dead-letter-reason"])


def test_a_stream_is_replayed_by_seek(bus: gearshift.Bus) -> None:
    """Seek to the start, to an offset and to a time; each group has its own position."""
    receipts = bus.producer("events").send_many(range(20), key_by=lambda _: "k")
    place = receipts[15].position
    with bus.consumer("events", group="g") as consumer:
        assert drain(consumer, 20) == list(range(20))
        consumer.seek("earliest")
        assert drain(consumer, 20) == list(range(20))
        consumer.seek(Start.at_offsets({place.partition: place.offset}))
        assert drain(consumer, 5) == [15, 16, 17, 18, 19]
        consumer.seek("latest")
        assert drain(consumer, 0) == []
        consumer.seek(Start.at_time(datetime.fromtimestamp(0, UTC)))
        assert drain(consumer, 20) == list(range(20))
    with bus.consumer("events", group="late", start="latest") as late:
        assert drain(late, 0) == []


def test_waiting_ends_though_what_comes_is_for_others(bus: gearshift.Bus) -> None:
    """Messages that were redriven to another group are settled unseen, and prolong nothing."""
    producer = bus.producer("orders")
    with bus.consumer("orders", group="audit") as consumer, ThreadPoolExecutor() as threads:
        waiting = threads.submit(consumer.receive, timeout_s=1.0)
        deadline = time.monotonic() + PATIENCE_S
        while not waiting.done() and time.monotonic() < deadline:
            producer.send(1, headers={"redrive-group": "billing"})
            time.sleep(0.02)
        assert waiting.done()
        assert waiting.result() == []


@pytest.mark.parametrize("kind", [Order, Plain])
def test_payloads_are_typed(bus: gearshift.Bus, kind: type) -> None:
    """A Struct or a dataclass goes in and comes out; what does not fit is a DecodeError."""
    producer = bus.producer("orders")
    producer.send(kind(n=7))
    producer.send({"n": "seven"})
    with bus.consumer("orders", group="audit", value_type=kind) as consumer:
        good, bad = consumer.receive(timeout_s=30)[0], consumer.receive(timeout_s=30)[0]
        assert good.value == kind(n=7)
        with pytest.raises(errors.DecodeError, match="Expected `int`"):
            _ = bad.value


def test_send_many_gives_a_result_per_message(bus: gearshift.Bus) -> None:
    """One bad message does not stop the others, and cannot be overlooked."""
    producer = bus.producer("orders")
    with pytest.raises(gearshift.SendFailed) as caught:
        producer.send_many([1, object(), 3])
    kinds = [type(result) for result in caught.value.results]
    assert kinds == [gearshift.Receipt, errors.EncodeError, gearshift.Receipt]
    results = producer.send_many([1, object(), 3], raise_on_error=False)
    assert isinstance(results[1], errors.EncodeError)
    with bus.consumer("orders", group="audit") as consumer:
        assert drain(consumer, 4) == [1, 3, 1, 3]


def test_a_flush_that_is_not_done_in_time_raises(
    bus: gearshift.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a producer as of a consumer, like ``ready``; done in time it returns nothing."""
    producer, consumer = bus.producer("orders"), bus.consumer("orders", group="billing")
    producer.submit({})
    producer.flush()
    (delivery,) = take(consumer, 1)
    consumer.flush(0.0)
    monkeypatch.setattr(PublishBuffer, "flush", lambda self, timeout_s: False)
    with pytest.raises(errors.DeadlineExceeded, match=r"no result after 0\.5 s"):
        producer.flush(0.5)
    monkeypatch.undo()
    delivery.ack()
    monkeypatch.setattr(UserSide, "wait_settled", lambda self, timeout_s: False)
    with pytest.raises(errors.DeadlineExceeded, match=r"not told of every settlement after 0\.5 s"):
        consumer.flush(0.5)


def test_send_and_message_take_the_same_fields() -> None:
    """Those that type checkers know of ``send`` are the keywords of ``message``."""
    keywords = inspect.signature(gearshift.Producer.message).parameters.keys() - {"self", "value"}
    assert keywords == Fields.__annotations__.keys()


def test_type_checkers_know_the_keywords_of_consumer() -> None:
    """Those of its overloads, also of the async face, are those that it takes."""
    keywords = inspect.signature(gearshift.Bus.consumer).parameters.keys()
    assert keywords - {"self", "channel", "value_type"} == ConsumerOptions.__annotations__.keys()


def test_what_the_server_gives_is_what_counts_once_connected(
    open_bus: OpenBus, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without traffic it is what is declared; producers go by what the server says."""
    admin = {"memory": memory.Admin, "sqlite": sqlite.Admin}[backend]

    def capabilities(_: object, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        return replace(declared, max_message_bytes=declared.max_message_bytes + len(channel.name))

    monkeypatch.setattr(admin, "capabilities", capabilities)
    bus = open_bus(CHANNELS)
    declared = bus.capabilities("orders").max_message_bytes
    assert bus.capabilities("orders", live=True).max_message_bytes == declared + len("orders")
    message = bus.producer("orders").message(b"")
    bus.producer("orders").send(bytes(declared + len("orders") - message.size))
    with pytest.raises(errors.MessageTooLarge, match=str(declared + len("orders"))):
        bus.producer("orders").send(bytes(declared + len("orders") + 1))


@pytest.mark.parametrize("question", ["groups", "exists", "server", "capabilities"])
def test_a_question_is_asked_again_while_the_broker_is_not_ready(
    open_bus: OpenBus, backend: str, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """As a Kafka whose coordinator has only just started is: it answers, "not yet"."""
    admin = {"memory": memory.Admin, "sqlite": sqlite.Admin}[backend]
    answer, refusals = getattr(admin, question), [errors.ConnectionFailed("not coordinator")] * 2

    def not_ready(*arguments: object) -> object:
        if refusals:
            raise refusals.pop()
        return answer(*arguments)

    bus = open_bus(CHANNELS)
    bus.declare("orders")
    monkeypatch.setattr(admin, question, not_ready)
    ask = {
        "groups": lambda: bus.groups("orders"),
        "exists": lambda: bus.exists("orders"),
        "server": bus.server,
        "capabilities": lambda: bus.capabilities("orders", live=True),
    }[question]
    assert ask()
    assert not refusals


def test_a_consumer_is_iterated_and_settles(bus: gearshift.Bus) -> None:
    """As people know it from other clients: a loop over it, and ``consumer.ack(delivery)``."""
    consumer = bus.consumer("orders", group="billing")
    bus.producer("orders").send_many(["ack", "retry", "reject"])
    outcomes: list[str | None] = []
    for delivery in consumer:
        verb = "ack" if delivery.attempt > 1 else delivery.value
        getattr(consumer, verb)(delivery)
        outcomes.append(delivery.outcome)
        if len(outcomes) == 4:
            break
    assert sorted(map(str, outcomes)) == ["ack", "ack", "reject", "retry"]
