"""How deliveries end on RabbitMQ: retries, late acks, dead letters, and acks that cover others."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import take, until

import gearshift
from gearshift.driver import ChannelSpec, ConsumerSpec, Received, Settlement, SettleRequest
from gearshift.errors import ConfigError, StaleDelivery
from gearshift.message import Message, Semantics
from gearshift_rabbitmq.backend import Backend
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.queue.consumer import QueueConsumer
from gearshift_rabbitmq.settings import Settings
from native_brokers import RabbitMQ

from .conftest import OpenBus, ready_in, take_raw

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


class Driver:
    """A consumer driver on a fresh channel with messages in it, without the portable layer.

    Connections for retries wait for ``retries_may_connect``.
    """

    def __init__(self, broker: RabbitMQ, channel: str, messages: int) -> None:
        self.settings = Settings(url=broker.url)
        self.backend = Backend(self.settings)
        self.spec = ChannelSpec(name=channel, semantics=Semantics.QUEUE, groups=("g",))
        admin = self.backend.admin()
        admin.declare(self.spec)
        admin.close()
        self.publish(messages)
        self.retries_may_connect = threading.Event()
        self.consumer = self.another(self._connect)
        self.received = self.receive(self.consumer, messages)

    def publish(self, count: int) -> None:
        producer = self.backend.producer(self.spec)
        producer.submit([Message(b"%d" % n, id=str(n)) for n in range(count)], lambda _: None)
        producer.close(20)

    def another(self, connect: Callable[[str], Connection] | None = None) -> QueueConsumer:
        wanted = ConsumerSpec(channel=self.spec, group="g", member="", prefetch=100)
        connect = connect or (lambda purpose: Connection(self.settings, purpose))
        return QueueConsumer(connect, wanted)

    def receive(self, consumer: QueueConsumer, count: int, at_once: int = 100) -> list[Received]:
        found: list[Received] = []
        assert until(lambda: found.extend(consumer.receive(at_once, 0.2)) or len(found) >= count)
        return found

    def retry(self, number: int, delay_s: float) -> SettleRequest:
        incoming = self.received[number]
        return SettleRequest(
            incoming.token, Settlement.RETRY, delay_s, message=incoming.message, attempt=1
        )

    def ack_through(self, number: int) -> SettleRequest:
        return SettleRequest(self.received[number].token, Settlement.ACK, through=True)

    def close(self) -> None:
        self.retries_may_connect.set()
        self.consumer.close(5)

    def _connect(self, purpose: str) -> Connection:
        if purpose.startswith("retries"):
            self.retries_may_connect.wait(30)
        return Connection(self.settings, purpose)


def bodies(received: list[Received]) -> list[bytes | None]:
    return [incoming.message.body for incoming in received]


def test_an_ack_through_leaves_out_a_retry_that_is_not_stored_yet(
    rabbitmq: RabbitMQ, raw: BlockingChannel, name: str
) -> None:
    """One whose copy was on its way when the connection died comes back; the others are gone."""
    driver = Driver(rabbitmq, name, 5)
    assert not driver.consumer.settle([driver.retry(1, 60.0), driver.ack_through(4)])
    driver.consumer.receive(0, 0.1)
    driver.consumer._connection.close(0.0)
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
    (first,) = take(consumer, 1)
    first.retry(delay_s=5.0)
    assert until(lambda: ready_in(raw, f"{name}.default:retry-8s") == 1)
    # RabbitMQ 3.10 writes the names of queues up to a second after it says that they are there.
    rabbitmq.evaluate("[dets:sync(Table) || Table <- dets:all()]")
    rabbitmq.kill()
    rabbitmq.start()
    (second,) = take(consumer, 1)
    assert (second.id, second.key, second.attempt) == (receipt.id, "k", 2)
    assert second.redelivered
    second.ack()
    consumer.flush()
    assert consumer.receive(timeout_s=0.5) == []


def test_a_short_delay_does_not_wait_behind_a_long_one(open_bus: OpenBus, name: str) -> None:
    """Quorum queues expire at their head only, so delays of different length wait apart."""
    bus = open_bus(f"[channels.{name}]\nretry_max_delay_s = 600.0")
    producer, consumer = bus.producer(name), bus.consumer(name)
    producer.send_many([{"n": 1}, {"n": 2}])
    received = [take(consumer, 1)[0] for _ in range(2)]
    received[0].retry(delay_s=600.0)
    received[1].retry(delay_s=0.5)
    (again,) = take(consumer, 1)
    assert again.value == {"n": 2}
    again.ack()


def _one_late(
    producer: gearshift.Producer, consumer: gearshift.Consumer, is_late: Callable[[], bool]
) -> tuple[gearshift.Delivery, gearshift.Delivery, set[object]]:
    """Two deliveries in hand: one that has become late, and one that had come just before that.
    And the values that are still to come."""
    producer.send("late")
    producer.send(-1)
    late, other = take(consumer, 1) + take(consumer, 1)
    to_come: set[object] = {"late"}
    for number in itertools.count():
        if is_late():
            break
        producer.send(number)
        to_come.add(number)
        for newer in consumer.receive(timeout_s=0.2):
            other.ack()
            other = newer
            to_come.remove(other.value)
    return late, other, to_come


def _ack_once_each(consumer: gearshift.Consumer, to_come: set[object]) -> None:
    """Ack what is still to come, each once; what was late says that it was delivered before."""
    while to_come:
        (delivery,) = take(consumer, 1)
        assert delivery.redelivered or delivery.value != "late"
        delivery.ack()
        to_come.remove(delivery.value)


@pytest.mark.parametrize("hasty", [6.0], indirect=True, ids=["6 s"])
def test_only_what_is_held_for_too_long_is_stale_and_comes_again(
    open_bus: OpenBus,
    raw: BlockingChannel,
    name: str,
    hasty: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Past the consumer_timeout_s one comes again, and what else is in hand still counts: it is
    given back before the broker takes all, for which a busy machine has as long again."""
    bus = open_bus(profile=f"consumer_timeout_s = {hasty / 2}")
    producer, consumer = bus.producer(name), bus.consumer(name)
    late, other, to_come = _one_late(
        producer, consumer, lambda: "not settled within 3 s" in caplog.text
    )
    other.ack()
    with pytest.raises(StaleDelivery):
        late.ack()
    _ack_once_each(consumer, to_come)
    consumer.flush()
    assert bus.stats().receiving[0].reconnects == 0
    bus.close()
    assert ready_in(raw, f"{name}.default") + ready_in(raw, f"{name}.default:suspects") == 0


@pytest.mark.parametrize("hasty", [6.0], indirect=True, ids=["6 s"])
def test_what_waits_behind_slow_work_is_called_once(
    open_bus: OpenBus, name: str, hasty: float
) -> None:
    """The buffer goes back before it is held for too long: in order, and without an attempt.

    Long enough for a busy machine to settle in time what it works on.
    """
    bus = open_bus(profile=f"consumer_timeout_s = {hasty}")
    consumer = bus.consumer(name, prefetch=500)
    bus.producer(name).send_many(range(8))
    calls = []
    while len(calls) < 8:
        (delivery,) = take(consumer, 1)
        time.sleep(hasty / 6)  # the work
        calls.append((delivery.value, delivery.attempt))
        delivery.ack()
    assert calls == [(number, 1) for number in range(8)]
    consumer.flush()
    assert consumer.receive(timeout_s=0.1) == []
    assert bus.stats().receiving[0].reconnects == 0


@pytest.mark.parametrize("rabbitmq", ["rabbitmq4"], indirect=True)
def test_the_broker_is_told_how_long_a_message_may_be_held(
    open_bus: OpenBus, name: str, hasty: float
) -> None:
    """RabbitMQ 4.3 keeps to the consumer's own time, whatever its consumer_timeout is."""
    bus = open_bus()
    consumer = bus.consumer(name)
    bus.producer(name).send({})
    (delivery,) = take(consumer, 1)
    assert consumer.receive(timeout_s=1.5 * hasty) == []
    delivery.ack()
    consumer.flush()


@pytest.mark.parametrize("rabbitmq", ["rabbitmq4"], indirect=True)
@pytest.mark.parametrize("hasty", [3.0], indirect=True, ids=["3 s"])
def test_what_the_broker_takes_back_alone_costs_the_others_nothing(
    open_bus: OpenBus,
    raw: BlockingChannel,
    name: str,
    hasty: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It also ends the subscription, as if the queue were gone: that is told, and healed."""
    raw.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
    bus = open_bus(f'[channels.c]\nnative.rabbitmq = {{ queue = "{name}" }}')
    producer, consumer = bus.producer("c"), bus.consumer("c")
    late, other, to_come = _one_late(
        producer, consumer, lambda: "not settled within" in caplog.text
    )
    other.ack()
    consumer.flush()
    _ack_once_each(consumer, to_come)
    consumer.flush()
    with pytest.raises(StaleDelivery):
        late.ack()
    assert "longer than its consumer_timeout" in caplog.text
    bus.close()
    assert ready_in(raw, name) == 0


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
    (delivery,) = take(consumer, 1)
    delivery.reject("no good")
    assert until(lambda: bus.stats().receiving[0].unstored == 1)
    raw.queue_purge(queue)
    assert until(lambda: consumer.receive(timeout_s=0.1) or ready_in(raw, queue))
    properties, body = take_raw(raw, queue)
    assert (properties.message_id, body) == (receipt.id, b'{"n":1}')
    assert properties.headers["dead-letter-reason"] == "no good"
    assert properties.headers["dead-letter-attempts"] == 1
    assert until(lambda: _nothing_left(bus, name))


def test_broker_limits_are_declared_on_every_queue_of_ours(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """Quorum, a delivery limit, and a queue for what passes it: 4.x drops at 20 otherwise."""
    bus = open_bus(f'[channels.{name}]\ngroups = ["a", "b"]')
    bus.declare(name)
    told = rabbitmq.text('rabbit_amqqueue:info_all(<<"/">>, [name, type, arguments])')
    listed = [one.partition('">>}},') for one in told.split('queue,<<"')]
    queues = {queue: rest for queue, _, rest in listed if queue.startswith(name)}
    assert queues.keys() == {f"{name}.{group}{end}" for group in "ab" for end in ENDS}
    for group in "ab":
        rest = queues[f"{name}.{group}"]
        assert rest.startswith("{type,quorum}")
        assert re.search(r'{<<"x-delivery-limit">>,\w+,10000}', rest)
        undeliverable = f'<<"{name}.{group}:undeliverable">>'
        assert f'{{<<"x-dead-letter-routing-key">>,longstr,{undeliverable}}}' in rest
        assert '{<<"x-dead-letter-strategy">>,longstr,<<"at-least-once">>}' in rest


ENDS = ("", ":undeliverable")


def _nothing_left(bus: gearshift.Bus, name: str) -> bool:
    (status,) = bus.groups(name)
    return status.ready == 0


def test_a_subscription_gives_way_to_a_smaller_one_when_all_it_allows_is_here(
    rabbitmq: RabbitMQ, raw: BlockingChannel, name: str
) -> None:
    """It goes by what core has room for; every message comes once, in order."""
    driver = Driver(rabbitmq, name, 0)
    consumer, queue = driver.consumer, f"{name}.g"
    driver.publish(40)
    found: list[Received] = []

    assert until(lambda: found.extend(consumer.receive(8 - len(found), 0.2)) or len(found) == 8)
    assert until(lambda: ready_in(raw, queue) == 32)  # before anything is known of their size
    consumer.settle([SettleRequest(one.token, Settlement.ACK) for one in found[:6]])
    # Two are in hand and no more wanted; six more came, and one to the next subscription.
    assert until(lambda: consumer.receive(0, 0.1) or ready_in(raw, queue) == 25)
    consumer.settle([SettleRequest(one.token, Settlement.ACK) for one in found[6:]])
    while len(found) < 40:
        (one,) = driver.receive(consumer, 1, at_once=1)
        consumer.settle([SettleRequest(one.token, Settlement.ACK)])
        found.append(one)
    assert bodies(found) == [b"%d" % n for n in range(40)]
    assert not any(one.redelivered for one in found)
    driver.close()


def test_large_messages_stay_with_the_broker(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Whatever ``prefetch`` is, the consumer holds few at any time; it gets all of them.

    Eight are asked for before anything is known of their size, of which four fit. When the first
    ones came alone, a subscription for those that fit begins behind them, and has half of that: of
    six at most, as that of eight stays where more fit.
    """
    bus = open_bus(f"[channels.{name}]\nprefetch_bytes = 65536")
    bus.producer(name).send_many([bytes([n]) * 16384 for n in range(40)])
    found: list[bytes | None] = []

    def held() -> int:
        return 40 - len(found) - ready_in(raw, f"{name}.default")

    with bus.consumer(name) as consumer:
        (first,) = take(consumer, 1)
        assert until(lambda: held() >= 4)
        found.append(first.body)
        first.ack()
        while len(found) < 40:
            assert held() <= 8 + 3
            (one,) = take(consumer, 1)
            found.append(one.body)
            one.ack()
        assert found == [bytes([n]) * 16384 for n in range(40)]


def test_small_messages_come_in_numbers(open_bus: OpenBus, raw: BlockingChannel, name: str) -> None:
    """Once their size is known, the consumer holds all that prefetch allows."""
    bus = open_bus()
    bus.producer(name).send_many(range(150))
    with bus.consumer(name) as consumer:
        assert consumer.receive(timeout_s=20)
        assert until(lambda: ready_in(raw, f"{name}.default") == 50)


def test_order_is_kept_while_the_size_of_messages_changes(open_bus: OpenBus, name: str) -> None:
    """One subscription gives way to another again and again, and none takes anything back."""
    bus = open_bus(f"[channels.{name}]\nprefetch_bytes = 262144")
    sizes = itertools.cycle([10] * 200 + [60_000] * 20)
    bodies = [b"%d " % n + bytes(next(sizes)) for n in range(2_000)]
    bus.producer(name).send_many(bodies)
    with bus.consumer(name) as consumer:
        found: list[tuple[bytes | None, bool | None]] = []
        while len(found) < len(bodies):
            for delivery in take(consumer, 1):
                found.append((delivery.body, delivery.redelivered))
                delivery.ack()
    assert found == [(body, False) for body in bodies]
