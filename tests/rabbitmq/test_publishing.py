"""What a send that cannot succeed ends as: said in time, by type, and never believed stored."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from pika.adapters.blocking_connection import BlockingChannel

import gearshift
from gearshift.errors import (
    BackpressureError,
    MessageTooLarge,
    OutcomeUnknown,
    PublishRefused,
    Unroutable,
)
from native_brokers import RabbitMQ

from .conftest import OpenBus, take, until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

MIB = 1024 * 1024


@contextlib.contextmanager
def memory_alarm(broker: RabbitMQ) -> Iterator[None]:
    """The broker takes nothing while the block runs."""
    broker.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        yield
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")


def refused_for_lack_of_room(producer: gearshift.Producer) -> BackpressureError:
    """Send until the broker's alarm shows; what was written before it is unknown, never stored."""
    for _ in range(20):
        try:
            producer.send({}, timeout_s=0.5)
        except BackpressureError as error:
            return error
        except OutcomeUnknown:
            continue
    raise AssertionError("the alarm never showed")


def test_a_memory_alarm_is_backpressure_and_consumers_go_on(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """Sends end at their deadline, received work is acknowledged, and both heal by themselves."""
    bus = open_bus()
    producer = bus.producer(name)
    consumer = bus.consumer(name, prefetch=5)
    producer.send_many([{"n": n} for n in range(20)])
    with memory_alarm(rabbitmq):
        error = refused_for_lack_of_room(producer)
        values = []
        while len(values) < 20:
            for delivery in consumer.receive(5, timeout_s=20):
                values.append(delivery.value)
                delivery.ack()
        assert consumer.flush()
    assert error.retryable
    assert "memory" in str(error)
    assert values == [{"n": n} for n in range(20)]
    assert producer.send({"n": "after"}, timeout_s=30).channel == name
    assert until(lambda: {"n": "after"} in [d.value for d in consumer.receive(5, timeout_s=1)])


def test_close_does_not_hang_under_a_memory_alarm(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """What was written before the alarm ends as unknown when the producer is closed."""
    bus = open_bus()
    producer = bus.producer(name)
    with memory_alarm(rabbitmq):
        refused_for_lack_of_room(producer)
        closing = threading.Thread(target=bus.close, args=(0.5,))
        closing.start()
        closing.join(30)
        assert not closing.is_alive()


def test_a_message_that_no_queue_takes_is_unroutable(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """The broker acknowledges it all the same; it is an error here, and the next one is not."""
    bus = open_bus()
    producer = bus.producer(name)
    raw.queue_unbind(f"{name}.default", name, "")
    with pytest.raises(Unroutable) as caught:
        producer.send({})
    assert not caught.value.retryable
    raw.queue_bind(f"{name}.default", name, "")
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
    assert take(raw, name)[0].message_id == first.id
    producer.send({"n": 3})
    assert take(raw, name)[1] == b'{"n":3}'


def test_a_message_that_the_channel_is_closed_over_fails_alone(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """An exchange deleted meanwhile closes the AMQP channel; the producer outlives that."""
    bus = open_bus()
    producer = bus.producer(name)
    producer.send({})
    raw.exchange_delete(name)
    with pytest.raises(gearshift.errors.UnknownChannel, match=name):
        producer.send({})
    raw.exchange_declare(name, "fanout", durable=True)
    raw.queue_bind(f"{name}.default", name, "")
    producer.send({})


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
