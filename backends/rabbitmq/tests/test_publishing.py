"""What a send that cannot succeed ends as: said in time, by type, and never believed stored."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TypeVar

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift.errors import (
    BackpressureError,
    GearshiftError,
    MessageTooLarge,
    OutcomeUnknown,
    PublishRefused,
    UnknownChannel,
    Unroutable,
)
from native_brokers import RabbitMQ

from .conftest import OpenBus, take_raw

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

MIB = 1024 * 1024


@contextlib.contextmanager
def memory_alarm(broker: RabbitMQ) -> Iterator[None]:
    """The broker takes nothing while the block runs."""
    try:
        broker.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(1.0e-7)")
        yield
    finally:
        broker.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4)")


Error = TypeVar("Error", bound=GearshiftError)


def refusal(producer: gearshift.Producer, kind: type[Error], timeout_s: float = 0.5) -> Error:
    """Send until the answer is ``kind``. What a busy broker has not answered is unknown."""
    errors: list[Error] = []

    def is_refused() -> bool:
        try:
            producer.send({}, timeout_s=timeout_s)
        except kind as error:
            errors.append(error)
        except OutcomeUnknown:
            pass
        return bool(errors)

    assert until(is_refused), f"there was never a {kind.__name__}"
    return errors[0]


def test_a_memory_alarm_is_backpressure_and_consumers_go_on(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """Sends end at their deadline, received work is acknowledged, and both heal by themselves."""
    bus = open_bus()
    producer = bus.producer(name)
    consumer = bus.consumer(name, prefetch=5)
    producer.send_many([{"n": n} for n in range(20)])
    with memory_alarm(rabbitmq):
        error = refusal(producer, BackpressureError)
        values = [value for _ in range(20) for value in ack_all(take(consumer, 1))]
        consumer.flush()
    assert error.retryable
    assert "memory" in str(error)
    assert values == [{"n": n} for n in range(20)]
    assert producer.send({"n": "after"}, timeout_s=30).channel == name
    assert until(lambda: {"n": "after"} in ack_all(consumer.receive(5, timeout_s=1)))


def test_close_does_not_hang_under_a_memory_alarm(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """What was written before the alarm ends as unknown when the producer is closed."""
    bus = open_bus()
    producer = bus.producer(name)
    with memory_alarm(rabbitmq):
        refusal(producer, BackpressureError)
        closing = threading.Thread(target=bus.close, args=(0.5,))
        closing.start()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()


def test_a_message_that_no_queue_takes_is_unroutable(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """The broker acknowledges it all the same; behind an exchange of others it is an error that
    says where it was sent, and the next one is not."""
    raw.exchange_declare(name, "fanout", durable=True)
    raw.queue_declare(f"{name}-queue")
    bus = open_bus(f'[channels.c]\nnative.rabbitmq.exchange = "{name}"')
    producer = bus.producer("c")
    with pytest.raises(Unroutable, match=f"NO_ROUTE from exchange '{name}' by 'key'") as caught:
        producer.send({}, key="key")
    assert not caught.value.retryable
    raw.queue_bind(f"{name}-queue", name, "")
    producer.send({})


def test_exactly_the_unroutable_ones_of_a_batch_fail(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Returns carry no number: each is matched with its own message, of equal bodies too."""
    raw.exchange_declare(name, "direct", durable=True)
    raw.queue_declare(f"{name}-bound", durable=True)
    raw.queue_bind(f"{name}-bound", name, "bound")
    bus = open_bus(
        f'[channels.c]\nnative.rabbitmq = {{ exchange = "{name}", exchange_type = "direct", '
        f'queue = "{name}-bound" }}'
    )
    producer = bus.producer("c")
    keys = ["bound" if n % 3 else "nowhere" for n in range(600)]
    messages = [producer.message(b"same", key=key, id="same") for key in keys]
    results = producer.send_many(messages, raise_on_error=False)
    assert [isinstance(result, Unroutable) for result in results] == [k == "nowhere" for k in keys]


def test_a_full_queue_is_a_refusal_that_may_pass(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """A nack (x-overflow=reject-publish) is typed, retryable, and stored nothing."""
    raw.queue_declare(
        name, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    bus = open_bus(f'[channels.c]\nnative.rabbitmq = {{ queue = "{name}" }}')
    producer = bus.producer("c")
    first = producer.send({"n": 1})
    with pytest.raises(PublishRefused) as caught:
        producer.send({"n": 2})
    assert caught.value.retryable
    assert take_raw(raw, name)[0].message_id == first.id
    producer.send({"n": 3})
    assert take_raw(raw, name)[1] == b'{"n":3}'


def test_what_one_of_several_queues_refuses_is_unknown(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """The broker says no more than that, and another group has it."""
    bus = open_bus(f'[channels.{name}]\ngroups = ["g"]')
    producer = bus.producer(name)
    full = raw.queue_declare(
        "", exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    ).method.queue
    raw.queue_bind(full, name)
    with pytest.raises(OutcomeUnknown):
        producer.send(1)
    (delivery,) = take(bus.consumer(name, group="g"), 1)
    assert delivery.value == 1


@pytest.mark.parametrize("semantics", ["queue", "stream"])
def test_an_exchange_deleted_under_a_producer_is_declared_again(
    open_bus: OpenBus, raw: BlockingChannel, name: str, semantics: str
) -> None:
    """The send that meets it waits for that, and reaches the channel's group."""
    bus = open_bus(f'[channels.{name}]\nsemantics = "{semantics}"\ngroups = ["g"]')
    producer, consumer = bus.producer(name), bus.consumer(name, group="g")
    producer.send(1)
    raw.exchange_delete(name)
    producer.send(2)
    assert sorted(one.value for one in take(consumer, 2)) == [1, 2]


@pytest.mark.parametrize("semantics", ["queue", "stream"])
def test_queues_deleted_under_a_producer_are_declared_again(
    open_bus: OpenBus, raw: BlockingChannel, name: str, semantics: str
) -> None:
    """The broker took the message as the exchange is there, and returned it; it is sent again."""
    bus = open_bus(
        f'[channels.{name}]\nsemantics = "{semantics}"\ngroups = ["g", "h"]\n'
        + ("partitions = 1" if semantics == "stream" else "")
    )
    producer = bus.producer(name)
    producer.send_many(range(5))
    for queue in (f"{name}.g", f"{name}.h", f"{name}:0"):
        raw.queue_delete(queue)
    receipts = producer.send_many(range(5, 50))
    assert len(receipts) == 45
    for group in ("g", "h"):
        with bus.consumer(name, group=group) as consumer:
            assert [one.value for one in take(consumer, 45)] == list(range(5, 50))


@pytest.mark.parametrize("is_away", [True, False], ids=["away", "reading"])
def test_a_group_reads_a_partition_that_was_made_anew_from_its_beginning(
    open_bus: OpenBus, raw: BlockingChannel, name: str, is_away: bool
) -> None:
    """Its position in the deleted one says nothing of the new one; the other partition's stands."""
    bus = open_bus(f'[channels.{name}]\nsemantics = "stream"\ngroups = ["g"]\npartitions = 2')
    producer = bus.producer(name)
    consumer = bus.consumer(name, group="g")
    producer.send_many(range(10))  # in turn
    ack_all(take(consumer, 10))
    consumer.flush()
    if is_away:
        consumer.close()
    raw.queue_delete(f"{name}:0")
    producer.send_many(range(10, 16))
    if is_away:
        consumer = bus.consumer(name, group="g")
    found: set[object] = set()
    while len(found) < 6:  # what the other partition got may be sent to it twice
        found.update(ack_all(take(consumer, 1)))
    assert found == set(range(10, 16))


def test_a_queue_that_was_unbound_under_a_producer_is_bound_again(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """With what waited in it before."""
    bus = open_bus()
    producer = bus.producer(name)
    producer.send(1)
    raw.queue_unbind(f"{name}.default", name, "")
    producer.send(2)
    with bus.consumer(name) as consumer:
        assert [one.value for one in take(consumer, 2)] == [1, 2]


@pytest.mark.parametrize("kind", ["classic", "stream"])
def test_an_adopted_queue_that_is_gone_is_waited_for(
    open_bus: OpenBus, raw: BlockingChannel, name: str, kind: str
) -> None:
    """It is not made: a send fails at its deadline and names it; once it is back they go on."""
    queue = f"{name}-theirs"
    semantics = "stream" if kind == "stream" else "queue"

    def make() -> None:
        raw.queue_declare(queue, durable=True, arguments={"x-queue-type": kind})

    make()
    bus = open_bus(
        f'[channels.{name}]\nsemantics = "{semantics}"\nnative.rabbitmq = {{ queue = "{queue}" }}'
    )
    producer = bus.producer(name)
    raw.queue_delete(queue)
    assert queue in str(refusal(producer, UnknownChannel, 2.0))
    make()
    producer.send(3)
    with bus.consumer(name) as consumer:
        assert [one.value for one in take(consumer, 1)] == [3]


def test_an_adopted_exchange_that_is_gone_is_waited_for(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """It is not made: a send fails at its deadline and says why; once it is back they go on."""
    exchange, queue = f"{name}-theirs", f"{name}-queue"
    raw.queue_declare(queue)

    def make() -> None:
        raw.exchange_declare(exchange, "fanout", durable=True)
        raw.queue_bind(queue, exchange)

    make()
    bus = open_bus(f'[channels.{name}]\nnative.rabbitmq = {{ exchange = "{exchange}" }}')
    producer = bus.producer(name)
    raw.exchange_delete(exchange)
    assert exchange in str(refusal(producer, UnknownChannel, 2.0))
    with pytest.raises(UnknownChannel, match=exchange):  # met while it is being looked for
        producer.send(2, timeout_s=0.3)
    assert bus.stats().sending[0].silent_s > 0
    make()
    producer.send(3)
    assert take_raw(raw, queue)[1] == b"3"


@pytest.mark.parametrize("semantics", ["queue", "stream"])
def test_the_largest_message_is_what_this_release_takes(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str, semantics: str
) -> None:
    """Declared is what every release takes; connected it is known that those before 4.0 take more,
    and producers go by that."""
    bus = open_bus(f'[channels.{name}]\nsemantics = "{semantics}"')
    declared = bus.capabilities(name)
    live = bus.capabilities(name, live=True)
    before_4 = bus.server().startswith("RabbitMQ 3.")
    assert declared.max_message_bytes == 16 * MIB
    assert live.max_message_bytes == (128 * MIB if before_4 else 16 * MIB)
    producer = bus.producer(name)
    if before_4:
        producer.send(bytes(16 * MIB + 1), timeout_s=60.0)
    with pytest.raises(MessageTooLarge, match=f"the limit is {live.max_message_bytes}"):
        producer.send(bytes(live.max_message_bytes + 1))
