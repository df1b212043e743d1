"""What is created, what is adopted as it is, and what is refused, on a real broker."""

from __future__ import annotations

import logging
import traceback
import uuid

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from support.waiting import take, until

from gearshift.errors import (
    AuthenticationFailed,
    ConfigError,
    NotSupported,
    TopologyConflict,
    UnknownChannel,
)
from native_brokers import RabbitMQ

from .conftest import OpenBus, ready_in, take_raw

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


def test_a_queue_with_other_arguments_is_a_conflict_that_names_them(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """The error says which one, what was wanted and what there is; the queue stays as it was."""
    queue = f"{name}.default"
    raw.queue_declare(
        queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3}
    )
    with pytest.raises(TopologyConflict) as caught:
        open_bus().producer(name)
    text = str(caught.value)
    assert f"queue {queue!r}" in text
    assert "x-de" in text  # the broker names the first that differs: a dead letter's or the limit
    assert "native" in text
    raw.queue_declare(
        queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3}
    )


@pytest.mark.parametrize("semantics", ["queue", "stream"])
def test_a_channel_that_was_placed_otherwise_is_used_as_it_is(
    open_bus: OpenBus, name: str, semantics: str
) -> None:
    """Copies and leaders are a matter of when it was made; what else differs is a conflict."""
    channel = f'[channels.{name}]\nsemantics = "{semantics}"\nnative.rabbitmq = '
    other = "leader_locator = 'client-local'"
    first = open_bus(f"{channel}{{ replicas = 1, {other}, stream_max_bytes = 1000000 }}")
    receipt = first.producer(name).send(1)
    for placement in ("replicas = 3", "leader_locator = 'balanced'", f"replicas = 1, {other}"):
        bus = open_bus(f"{channel}{{ {placement}, stream_max_bytes = 1000000 }}")
        bus.producer(name)
    (delivery,) = bus.consumer(name).receive(timeout_s=20)
    assert delivery.id == receipt.id
    delivery.ack()
    if semantics == "stream":
        with pytest.raises(TopologyConflict, match="x-max-length-bytes"):
            open_bus(f"{channel}{{ replicas = 3, stream_max_bytes = 2000000 }}").producer(name)


def test_few_copies_in_a_cluster_are_warned_of(
    open_bus: OpenBus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each channel, where the settings name three nodes."""
    nodes = "hosts = ['127.0.0.1', '127.0.0.2']"
    lines = "\n".join(f"[channels.{name}-{n}]\nnative.rabbitmq.replicas = {n}" for n in (1, 2, 3))
    bus = open_bus(lines, profile=nodes)
    for number in (1, 2, 3, 1, 2):
        bus.capabilities(f"{name}-{number}")
    warned = [record.getMessage() for record in caplog.records if "replicas" in record.msg]
    assert len(warned) == 2
    assert "its loss loses all" in warned[0]
    assert f"{name}-2" in warned[1]


def test_an_exchange_of_another_type_is_a_conflict(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """An exchange that somebody else made is not taken over in silence."""
    raw.exchange_declare(name, "topic", durable=True)
    with pytest.raises(TopologyConflict, match="'type'"):
        open_bus().producer(name)


def test_an_adopted_queue_is_used_as_it_is(
    rabbitmq: RabbitMQ, open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """A classic queue on the default exchange: sent to, received from, nothing made beside it."""
    raw.queue_declare(name, durable=True)
    bus = open_bus(f'[channels.c]\nnative.rabbitmq = {{ queue = "{name}" }}')
    receipt = bus.producer("c").send({"n": 1}, key="k")
    (delivery,) = take(bus.consumer("c"), 1)
    assert (delivery.id, delivery.key, delivery.attempt) == (receipt.id, "k", 1)
    delivery.ack()
    bus.close()
    assert {made for made in rabbitmq.names() if not made.startswith("c.dead")} == {name}
    with pytest.raises(ChannelClosedByBroker, match="NOT_FOUND"):
        raw.exchange_declare(name, passive=True)


def test_a_retry_on_an_adopted_classic_queue_is_counted(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """A classic queue counts nothing, so the copy carries the count and the original goes."""
    raw.queue_declare(name, durable=True)
    bus = open_bus(f'[channels.c]\nretry_delay_s = 0.0\nnative.rabbitmq = {{ queue = "{name}" }}')
    consumer = bus.consumer("c")
    receipt = bus.producer("c").send({"n": 1}, headers={"h": "v"})
    for attempt in (1, 2, 3):
        (delivery,) = take(consumer, 1)
        assert (delivery.id, delivery.attempt) == (receipt.id, attempt)
        assert dict(delivery.headers) == {"h": "v"}
        if attempt < 3:
            delivery.retry(delay_s=0)
    delivery.ack()
    consumer.flush()
    bus.close()
    assert ready_in(raw, name) == 0


def test_an_adopted_exchange_feeds_a_queue_for_each_group(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Groups get queues of ours, bound with the configured key; the exchange stays untouched."""
    raw.exchange_declare(name, "topic", durable=True)
    bus = open_bus(
        f'[channels.c-{name}]\ngroups = ["a", "b"]\nnative.rabbitmq = {{ exchange = "{name}", '
        'exchange_type = "topic", routing_key = "orders.new", binding_key = "orders.*" }'
    )
    consumers = [bus.consumer(f"c-{name}", group=group) for group in "ab"]
    bus.producer(f"c-{name}").send({"from": "us"})
    raw.basic_publish(name, "orders.old", b'{"from":"them"}')
    raw.basic_publish(name, "other", b'{"from":"nobody"}')
    for consumer in consumers:
        bodies = set()
        while len(bodies) < 2:
            bodies |= {delivery.body for delivery in consumer.receive(5, timeout_s=20)}
        assert bodies == {b'{"from":"us"}', b'{"from":"them"}'}


@pytest.mark.parametrize("groups", ["", 'groups = ["a"]'])
def test_whoever_only_sends_to_an_adopted_exchange_makes_no_default_queue(
    rabbitmq: RabbitMQ, open_bus: OpenBus, raw: BlockingChannel, name: str, groups: str
) -> None:
    """Nobody would empty it. Groups that are listed are made, and so is one that somebody reads."""
    raw.exchange_declare(name, "fanout", durable=True)
    theirs = raw.queue_declare("", exclusive=True).method.queue
    raw.queue_bind(theirs, name)
    bus = open_bus(f'[channels.c-{name}]\n{groups}\nnative.rabbitmq = {{ exchange = "{name}" }}')
    bus.declare(f"c-{name}")
    with bus.producer(f"c-{name}") as producer:
        producer.send({"n": 1})
    queues = rabbitmq.names()
    assert [queue for queue in queues if queue == f"c-{name}.a"] == ([f"c-{name}.a"] * bool(groups))
    assert f"c-{name}.default" not in queues
    if not groups:
        with bus.consumer(f"c-{name}") as consumer:
            bus.producer(f"c-{name}").send({"n": 2})
            (delivery,) = take(consumer, 1)
            assert delivery.value == {"n": 2}
            delivery.ack()


@pytest.mark.parametrize("what", ["queue", "exchange"])
def test_a_missing_adopted_object_is_unknown_and_not_made(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str, what: str
) -> None:
    """Neither producer nor consumer makes it, not even when asked to create."""
    bus = open_bus(f'[channels.c]\nnative.rabbitmq = {{ {what} = "{name}" }}')
    for make in (bus.producer, bus.consumer):
        with pytest.raises(UnknownChannel, match=name):
            make("c", create=True)
    assert name not in rabbitmq.names()


def test_what_is_adopted_is_not_deleted(open_bus: OpenBus, raw: BlockingChannel, name: str) -> None:
    """Deleting the channel is refused; the queue and its messages stay."""
    raw.queue_declare(name, durable=True)
    raw.basic_publish("", name, b"theirs")
    bus = open_bus(f'[channels.c]\nnative.rabbitmq = {{ queue = "{name}" }}')
    with pytest.raises(NotSupported, match="not ours"):
        bus.delete("c")
    assert take_raw(raw, name)[1] == b"theirs"


def test_what_the_broker_gave_up_on_is_told(
    open_bus: OpenBus, raw: BlockingChannel, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By consumers and by doctor: it lies where nobody reads."""
    bus = open_bus(f"[channels.{name}]")
    bus.declare(name)
    raw.basic_publish(name, "", b"too late", pika.BasicProperties(expiration="1"))
    queue = f"{name}.default:undeliverable"
    assert until(lambda: ready_in(raw, queue) == 1)
    with caplog.at_level(logging.WARNING), bus.consumer(name) as consumer:
        consumer.ready()
        assert until(lambda: "given up on 1 message" in caplog.text)
    (told,) = (one for one in bus.replication([name]) or () if one.hint is not None)
    assert "given up on 1 message" in told.text
    adopted = open_bus(f"[channels.late]\n{told.hint.split(' with ')[1]}")
    (late,) = take(adopted.consumer("late"), 1)
    assert late.body == b"too late"


def test_an_adopted_queue_has_one_group(open_bus: OpenBus, name: str) -> None:
    """Two groups cannot share one queue: refused before any I/O."""
    bus = open_bus(f'[channels.c]\ngroups = ["a", "b"]\nnative.rabbitmq = {{ queue = "{name}" }}')
    with pytest.raises(NotSupported, match="one queue"):
        bus.producer("c")


def test_two_buses_in_one_process_do_not_meet(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """The same channel on two virtual hosts is two channels."""
    rabbitmq.evaluate(
        f'rabbit_vhost:add(<<"{name}">>, <<"t">>), rabbit_auth_backend_internal:set_permissions('
        f'<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"t">>)'
    )
    here = open_bus()
    there = open_bus(url=rabbitmq.url.replace("%2F", name))
    senders = [bus.producer(name) for bus in (here, there)]
    for number, sender in enumerate(senders):
        sender.send({"bus": number})
    for number, bus in enumerate((here, there)):
        consumer = bus.consumer(name)
        (delivery,) = take(consumer, 1)
        assert delivery.value == {"bus": number}
        assert consumer.receive(timeout_s=0.2) == []
    rabbitmq.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"t">>)')


def test_refused_credentials_say_so_without_the_password(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One clear error that no wait will mend; the password is in neither error nor log."""
    caplog.set_level(logging.DEBUG)
    canary = uuid.uuid4().hex
    url = rabbitmq.url.replace("guest:guest", f"guest:{canary}")
    with pytest.raises(AuthenticationFailed, match="credentials") as caught:
        open_bus(url=url).producer(name)
    assert not caught.value.retryable
    assert f"127.0.0.1:{rabbitmq.port}" in str(caught.value)
    assert canary not in "".join(traceback.format_exception(caught.value))
    assert canary not in caplog.text


def test_a_missing_virtual_host_says_so(rabbitmq: RabbitMQ, open_bus: OpenBus, name: str) -> None:
    """It is a permanent refusal, told apart from an unreachable broker."""
    url = rabbitmq.url.replace("%2F", "no-such-vhost")
    with pytest.raises(AuthenticationFailed, match="virtual host") as caught:
        open_bus(url=url).producer(name)
    assert not caught.value.retryable


@pytest.mark.parametrize("seconds", [0, 301, -1])
def test_a_heartbeat_out_of_bounds_is_refused(open_bus: OpenBus, seconds: int) -> None:
    """0 would hide a dead broker for ever; over 300 s hides it for too long."""
    with pytest.raises(ConfigError, match="heartbeat_s"):
        open_bus(profile=f"heartbeat_s = {seconds}")


def test_the_broker_was_told_our_heartbeat(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str
) -> None:
    """The configured heartbeat is what the connection has, and its name says whose it is."""
    bus = open_bus(profile="heartbeat_s = 7")
    bus.producer(name)

    def ours() -> list[str]:
        told = rabbitmq.text("rabbit_networking:connection_info_all([timeout, client_properties])")
        return [one for one in told.split("{timeout,") if f"producer {name}" in one]

    assert until(ours)
    assert ours()[0].startswith("7}")
