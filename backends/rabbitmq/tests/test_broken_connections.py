"""Connections that freeze, break and swallow: noticed, healed, counted, and nothing leaks."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPConnectionError, AMQPError
from support.waiting import take, until

import gearshift
from gearshift.conformance.proxy import Proxy
from gearshift.errors import StaleDelivery, UnknownChannel
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.settings import Settings
from native_brokers import RabbitMQ
from native_brokers.ports import reserve_ports

from .conftest import OpenBus, ready_in

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    """The network between Gearshift and the broker."""
    with Proxy(("127.0.0.1", rabbitmq.port)) as between:
        yield between


def lost(caplog: pytest.LogCaptureFixture) -> set[str]:
    """The loggers that have told of a lost connection."""
    return {each.name for each in caplog.records if "connection lost" in each.getMessage()}


def test_what_a_cut_left_unconfirmed_is_sent_again_under_its_id(
    open_bus: OpenBus, proxy: Proxy, raw: BlockingChannel, name: str
) -> None:
    """The receipt says so, and both copies carry one id."""
    bus = open_bus(port=proxy.port)
    producer = bus.producer(name)
    producer.send({"n": 0})
    proxy.hold(answers_only=True)
    sending = producer.submit({"n": 1}, timeout_s=60)
    assert until(lambda: ready_in(raw, f"{name}.default") == 2)
    proxy.cut()
    proxy.release()
    receipt = sending.result(90)
    assert receipt.resent
    copies = take(bus.consumer(name), 3)
    assert [delivery.id for delivery in copies[1:]] == [receipt.id, receipt.id]


def test_a_frozen_broker_is_noticed_by_its_silence_and_both_sides_heal(
    rabbitmq: RabbitMQ, open_bus: OpenBus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGSTOP past the heartbeat breaks the connections, SIGCONT brings everything back."""
    bus = open_bus(profile="heartbeat_s = 2")
    producer, consumer = bus.producer(name), bus.consumer(name)
    producer.send({"n": 0})
    (before,) = take(consumer, 1)
    rabbitmq.pause()
    try:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(producer.send, {"n": 1}, timeout_s=90)
            both = {"gearshift.producer", "gearshift.consumer"}
            assert until(lambda: bus.stats().receiving[0].disconnected)
            silent_s = bus.stats().receiving[0].silent_s
            assert until(lambda: bus.stats().sending[0].disconnected)
            sender_silent_s = bus.stats().sending[0].silent_s
            assert until(lambda: lost(caplog) == both), caplog.text
            rabbitmq.resume()
            receipt = sending.result(100)
    finally:
        rabbitmq.resume()
    assert min(silent_s, sender_silent_s) >= 3.0  # since its last word, not our last look
    with pytest.raises(StaleDelivery):
        before.ack()
    ids = set()
    while ids < {before.id, receipt.id}:
        for delivery in take(consumer, 1):
            ids.add(delivery.id)
            delivery.ack()
    assert "has sent nothing for" in caplog.text


def test_a_producer_with_nothing_to_send_connects_again(
    open_bus: OpenBus, proxy: Proxy, name: str
) -> None:
    """So that it is as healthy as its broker, and the next message need not wait."""
    bus = open_bus(port=proxy.port)
    producer = bus.producer(name)
    producer.send(1)
    proxy.cut()
    assert until(lambda: bus.stats().sending[0].reconnects == 1)
    assert until(lambda: bus.stats().sending[0].silent_s < 1.0)


def test_a_silence_that_heartbeat_s_allows_says_nothing(open_bus: OpenBus, name: str) -> None:
    """Heartbeats that are minutes apart make nobody unhealthy between two of them."""
    bus = open_bus(profile="heartbeat_s = 300")
    producer, consumer = bus.producer(name), bus.consumer(name)
    producer.send(1)
    (delivery,) = take(consumer, 1)
    delivery.ack()
    consumer.receive(timeout_s=0.5)
    stats = bus.stats()
    assert [one.silent_s for one in (*stats.sending, *stats.receiving)] == [0.0, 0.0]


def test_a_server_that_hangs_up_while_pika_looks_is_no_surprise(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pika asks a new socket for its peer, and takes one that has none for a mistake of ours."""

    class HungUp(socket.socket):
        def getpeername(self) -> Any:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(socket, "socket", HungUp)
    with pytest.raises(ConnectionResetError):
        Connection(Settings(url=rabbitmq.url), "test")


def test_a_server_that_takes_a_connection_and_says_nothing_is_no_surprise() -> None:
    """What pika asserts while a handshake is broken off would end a consumer for good."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"amqp://u:p@127.0.0.1:{mute.getsockname()[1]}/"
        with pytest.raises((TimeoutError, AMQPError)):
            Connection(Settings(url=url, connect_timeout_s=1), "test")


def test_a_delivery_from_before_a_reconnect_settles_nothing_and_is_counted(
    open_bus: OpenBus, proxy: Proxy, raw: BlockingChannel, name: str
) -> None:
    """Its tag now belongs to another message, which stays unsettled."""
    bus = open_bus(port=proxy.port)
    bus.producer(name).send_many([{"n": 1}, {"n": 2}])
    consumer = bus.consumer(name)
    old = take(consumer, 2)
    proxy.cut()
    new = take(consumer, 2)
    assert {d.id for d in new} == {d.id for d in old}
    assert all(d.redelivered for d in new)
    for delivery in old:
        with pytest.raises(StaleDelivery):
            delivery.ack()
    consumer.flush()
    assert consumer._users.snapshot().stale == 2
    bus.close()
    assert until(lambda: ready_in(raw, f"{name}.default") == 2)


def test_a_queue_deleted_while_it_is_consumed_is_made_again(
    open_bus: OpenBus, raw: BlockingChannel, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker cancels the consumer, which says so, declares the queue anew and goes on."""
    bus = open_bus()
    producer, consumer = bus.producer(name), bus.consumer(name)
    producer.send({"n": 1})
    take(consumer, 1)[0].ack()
    raw.queue_delete(f"{name}.default")
    assert until(lambda: consumer._subscription.loop.reconnects == 1)
    assert "what was unsettled may be lost" in caplog.text
    producer.send({"n": 2})
    assert take(consumer, 1)[0].value == {"n": 2}


def test_an_adopted_queue_deleted_while_it_is_consumed_ends_the_consumer_aloud(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """What is not ours is not made again: receive raises once it has waited for its return."""
    raw.queue_declare(name, durable=True)
    bus = open_bus(f'[channels.c]\nnative.rabbitmq = {{ queue = "{name}" }}')
    consumer = bus.consumer("c")
    raw.queue_delete(name)
    assert until(lambda: not consumer._users._shared.ready)
    raw.queue_declare(name, durable=True)
    raw.basic_publish("", name, b"{}")
    assert take(consumer, 1)[0].body == b"{}"
    with pytest.raises(UnknownChannel, match=name):
        open_bus(f'[channels.c]\nnative.rabbitmq = {{ queue = "{name}-no" }}').consumer("c")


def test_everything_is_gone_after_close(open_bus: OpenBus, proxy: Proxy, name: str) -> None:
    """Threads, sockets and descriptors end with the bus, also when its network hangs."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    bus = open_bus(port=proxy.port)
    producer, consumer = bus.producer(name), bus.consumer(name)
    producer.send({"n": 1})
    (delivery,) = take(consumer, 1)
    delivery.retry(delay_s=60)
    proxy.hold()
    bus.close(1.0)
    proxy.release()
    proxy.cut()
    assert until(lambda: threading.active_count() <= threads)
    assert until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_a_killed_broker_is_told_once_by_each_side_and_without_a_traceback(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Pika's own errors, some for every attempt to connect, are kept for whoever asks at DEBUG."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "gearshift.toml"
    with RabbitMQ() as broker:
        file.write_text(
            f'profile = "p"\n[profiles.p]\nbackend = "rabbitmq"\nurl = "{broker.url}"\n'
        )
        with gearshift.open(file) as bus:
            producer, consumer = bus.producer("told"), bus.consumer("told")
            producer.send("before")
            take(consumer, 1)[0].ack()
            consumer.flush()
            caplog.clear()
            broker.kill()
            assert until(lambda: lost(caplog) == {"gearshift.consumer", "gearshift.producer"})
            broker.start()
            producer.send("after", timeout_s=60)
            take(consumer, 1)[0].ack()
    records = [each for each in caplog.records if not each.name.startswith("gearshift.kafka")]
    assert not [each for each in records if each.exc_info]
    told = [each.name for each in records if each.levelno >= logging.WARNING]
    assert sorted(set(told)) == sorted(told)
    assert set(told) == {"gearshift.consumer", "gearshift.producer"}


def test_other_users_of_pika_keep_its_log_lines(
    caplog: pytest.LogCaptureFixture, open_bus: OpenBus, name: str
) -> None:
    """Only what our own connections log is taken away, also in the same process."""
    open_bus().producer(name).send("x")
    (port,) = reserve_ports(1)
    with pytest.raises(AMQPConnectionError):
        pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    assert [each for each in caplog.records if each.name.startswith("pika")]
