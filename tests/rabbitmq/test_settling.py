"""How deliveries end on RabbitMQ: retries, late acks, dead letters, and acks that cover others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from pika.adapters.blocking_connection import BlockingChannel

import gearshift
from gearshift.driver import ChannelSpec, ConsumerSpec, Incoming, Settlement, Verdict
from gearshift.errors import ConfigError, StaleDelivery
from gearshift.message import Message, Semantics
from gearshift_rabbitmq.backend import RabbitBackend
from gearshift_rabbitmq.connection import Link
from gearshift_rabbitmq.consumer import Consumer
from gearshift_rabbitmq.settings import RabbitSettings
from native_brokers import RabbitMQ

from .conftest import OpenBus, ready_in, take, until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


class Driver:
    """A consumer driver on a fresh channel with messages in it, without the portable layer.

    Connections for retries wait for ``retries_may_connect``.
    """

    def __init__(self, broker: RabbitMQ, channel: str, messages: int) -> None:
        self.settings = RabbitSettings(url=broker.url)
        self.backend = RabbitBackend(self.settings)
        self.spec = ChannelSpec(name=channel, semantics=Semantics.QUEUE, groups=("g",))
        admin = self.backend.admin()
        admin.declare(self.spec)
        admin.close()
        producer = self.backend.producer(self.spec)
        producer.submit([Message(b"%d" % n, id=str(n)) for n in range(messages)], lambda _: None)
        assert producer.flush(20)
        producer.close(5)
        self.retries_may_connect = threading.Event()
        self.consumer = self.another(self._connect)
        self.received = self.receive(self.consumer, messages)

    def another(self, connect: Callable[[str], Link] | None = None) -> Consumer:
        wanted = ConsumerSpec(channel=self.spec, group="g", member="", prefetch=100)
        return Consumer(connect or (lambda purpose: Link(self.settings, purpose)), wanted)

    def receive(self, consumer: Consumer, count: int) -> list[Incoming]:
        found: list[Incoming] = []
        assert until(lambda: found.extend(consumer.receive(100, 0.2)) or len(found) >= count)
        return found

    def retry(self, number: int, delay_s: float) -> Settlement:
        incoming = self.received[number]
        return Settlement(
            incoming.token, Verdict.RETRY, delay_s, message=incoming.message, attempt=1
        )

    def ack_through(self, number: int) -> Settlement:
        return Settlement(self.received[number].token, Verdict.ACK, through=True)

    def close(self) -> None:
        self.retries_may_connect.set()
        self.consumer.close(5)

    def _connect(self, purpose: str) -> Link:
        if purpose.startswith("retries"):
            self.retries_may_connect.wait(30)
        return Link(self.settings, purpose)


def bodies(received: list[Incoming]) -> list[bytes | None]:
    return [incoming.message.body for incoming in received]


def test_an_ack_through_leaves_out_a_retry_that_is_not_stored_yet(
    rabbitmq: RabbitMQ, raw: BlockingChannel, name: str
) -> None:
    """One whose copy was on its way when the connection died comes back; the others are gone."""
    driver = Driver(rabbitmq, name, 5)
    assert not driver.consumer.settle([driver.retry(1, 60.0), driver.ack_through(4)])
    driver.consumer.receive(0, 0.1)
    driver.consumer._link.close(0.0)
    other = driver.another()
    try:
        assert bodies(driver.receive(other, 1)) == [b"1"]
        assert not other.receive(10, 0.5)
    finally:
        other.close(5)
        driver.close()


def test_a_stored_retry_ends_its_original_and_nothing_is_held(
    rabbitmq: RabbitMQ, raw: BlockingChannel, name: str
) -> None:
    """While it waits in the broker the group's queue holds nothing, ready or handed out."""
    driver = Driver(rabbitmq, name, 5)
    driver.retries_may_connect.set()
    assert not driver.consumer.settle([driver.retry(1, 60.0), driver.ack_through(4)])
    assert until(lambda: driver.consumer.receive(0, 0.05) or not driver.consumer._unsettled)
    driver.close()
    assert ready_in(raw, f"{name}.g") == 0
    assert until(lambda: ready_in(raw, f"{name}.g:retry-64s") == 1)


def test_an_ack_of_another_connection_settles_nothing(rabbitmq: RabbitMQ, name: str) -> None:
    """Tags start at 1 on each connection; a driver refuses those it never gave out or has ended."""
    driver = Driver(rabbitmq, name, 2)
    ack = driver.ack_through(1)
    assert not driver.consumer.settle([ack])
    assert [failure.token for failure in driver.consumer.settle([ack])] == [ack.token]
    assert driver.consumer.receive(10, 0.2) == []
    driver.close()


def test_a_delayed_retry_survives_a_killed_broker(
    rabbitmq: RabbitMQ, open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """It waits on the broker's disk and comes, once, with its attempt, id and body."""
    channels = f"[channels.{name}]\nretry_delay_s = 5.0\nretry_max_delay_s = 8.0"
    bus = open_bus(channels)
    producer = bus.producer(name)
    consumer = bus.consumer(name)
    receipt = producer.send({"n": 1}, key="k")
    (first,) = consumer.receive(timeout_s=20)
    first.retry(delay_s=5.0)
    assert until(lambda: ready_in(raw, f"{name}.default:retry-8s") == 1)
    time.sleep(2.0)  # a new quorum queue of RabbitMQ 3.10 does not survive a kill before that
    rabbitmq.kill()
    rabbitmq.start()
    (second,) = consumer.receive(timeout_s=60)
    assert (second.id, second.key, second.attempt) == (receipt.id, "k", 2)
    assert second.redelivered
    second.ack()
    assert consumer.flush()
    assert consumer.receive(timeout_s=0.5) == []


def test_a_short_delay_does_not_wait_behind_a_long_one(open_bus: OpenBus, name: str) -> None:
    """Quorum queues expire at their head only, so delays of different length wait apart."""
    bus = open_bus(f"[channels.{name}]\nretry_max_delay_s = 600.0")
    producer, consumer = bus.producer(name), bus.consumer(name)
    producer.send_many([{"n": 1}, {"n": 2}])
    received = [consumer.receive(timeout_s=20)[0] for _ in range(2)]
    received[0].retry(delay_s=600.0)
    received[1].retry(delay_s=0.5)
    (again,) = consumer.receive(timeout_s=60)
    assert again.value == {"n": 2}
    again.ack()


def test_late_acks_after_the_broker_took_the_message_back_are_stale(
    open_bus: OpenBus, name: str, hasty: float
) -> None:
    """Past the broker's consumer_timeout it comes again; the old delivery settles nothing."""
    bus = open_bus()
    consumer = bus.consumer(name)
    bus.producer(name).send({})
    (late,) = consumer.receive(timeout_s=20)
    (again,) = consumer.receive(timeout_s=60)
    assert again.id == late.id
    assert again.redelivered
    with pytest.raises(StaleDelivery):
        late.ack()
    again.ack()
    assert consumer.flush()


def test_processing_longer_than_the_consumer_timeout_is_refused(
    open_bus: OpenBus, name: str
) -> None:
    """Before any I/O: the error names both times and what to change."""
    bus = open_bus(f"[channels.{name}]\nmax_processing_s = 1800.0", profile="connect_timeout_s = 1")
    with pytest.raises(ConfigError, match="max_processing_s is 1800") as caught:
        bus.consumer(name)
    assert "consumer_timeout_s" in str(caught.value)


REFUSING_DEAD_LETTERS = """
[channels.{name}]
dead_letter = "{name}-dead"
retry_delay_s = 0.05
retry_max_delay_s = 0.1
[channels.{name}-dead]
native.rabbitmq = {{ queue = "{name}-full" }}
"""


def test_a_dead_letter_that_is_refused_leaves_the_original_unsettled(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """The original ends only once its dead letter is confirmed, however often that is tried."""
    queue = f"{name}-full"
    raw.queue_declare(queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    raw.basic_publish("", queue, b"fills it")
    bus = open_bus(REFUSING_DEAD_LETTERS.format(name=name))
    consumer = bus.consumer(name)
    receipt = bus.producer(name).send({"n": 1})
    for attempt in (1, 2):
        (delivery,) = consumer.receive(timeout_s=20)
        assert (delivery.id, delivery.attempt) == (receipt.id, attempt)
        delivery.reject("no good")
    (delivery,) = consumer.receive(timeout_s=20)
    raw.queue_purge(queue)
    delivery.reject("no good")
    properties, body = take(raw, queue)
    assert (properties.message_id, body) == (receipt.id, b'{"n":1}')
    assert properties.headers["dead-letter-reason"] == "no good"
    assert properties.headers["dead-letter-attempts"] == 3
    assert until(lambda: _nothing_left(bus, name))


def test_broker_limits_are_declared_on_every_queue_of_ours(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """Quorum, a delivery limit, and a queue for what passes it: 4.x drops at 20 otherwise."""
    bus = open_bus(f'[channels.{name}]\ngroups = ["a", "b"]')
    bus.declare(name)
    listing = rabbitmq.ctl("list_queues", "name", "type", "arguments", "--silent")
    queues = {line.split()[0]: line for line in listing.splitlines() if line.startswith(name)}
    assert queues.keys() == {f"{name}.{group}{end}" for group in "ab" for end in ENDS}
    for group in "ab":
        line = queues[f"{name}.{group}"]
        assert line.split()[1] == "quorum"
        assert '"x-delivery-limit",1000' in line
        assert f'"x-dead-letter-routing-key","{name}.{group}:undeliverable"' in line
        assert '"x-dead-letter-strategy","at-least-once"' in line


ENDS = ("", ":undeliverable")


def _nothing_left(bus: gearshift.Bus, name: str) -> bool:
    (status,) = bus.groups(name)
    return status.ready == 0
