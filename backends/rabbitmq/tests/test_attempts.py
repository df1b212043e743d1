"""What a delivery costs on RabbitMQ: closing, standing still, crashing."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections import Counter
from pathlib import Path

import pytest
from attempts.running import handled, run
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import take

from gearshift.errors import StaleDelivery
from native_brokers import RabbitMQ

from .conftest import OpenBus, ready_in, until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.mark.parametrize("restarts", [1, 6])
def test_restarts_do_not_add_up_in_the_brokers_count(
    open_bus: OpenBus, raw: BlockingChannel, name: str, restarts: int
) -> None:
    """A close returns the buffer once; what came back is taken alone or not at all."""
    bus = open_bus()
    bus.producer(name).send_many(range(20))
    queues = (f"{name}.default", f"{name}.default:suspects")
    for restart in range(restarts):
        with bus.consumer(name) as consumer:
            take(consumer, 1)[0].ack()
        left = 19 - restart
        assert until(lambda n=left: sum(ready_in(raw, queue) for queue in queues) == n)
    counts = []
    for queue in queues:
        for _ in range(ready_in(raw, queue)):
            _, properties, _ = raw.basic_get(queue, auto_ack=True)
            counts.append((properties.headers or {}).get("x-delivery-count", 0))
    assert len(counts) == 20 - restarts
    assert max(counts) <= 1


def test_restarts_lose_nothing_of_an_adopted_queue(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """RabbitMQ 4 drops what has come back to it twenty times."""
    raw.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
    bus = open_bus(f'[channels.c]\ndead_letter = false\nnative.rabbitmq = {{ queue = "{name}" }}\n')
    bus.producer("c").send_many(range(50))
    given = []
    for count in (*[1] * 25, 25):
        with bus.consumer("c") as consumer:
            for delivery in take(consumer, count):
                given.append((delivery.value, delivery.attempt))
                delivery.ack()
    assert sorted(given) == [(number, 1) for number in range(50)]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_deaths_end_a_message_of_an_adopted_queue_too(
    rabbitmq: RabbitMQ,
    open_bus: OpenBus,
    raw: BlockingChannel,
    name: str,
    tmp_path: Path,
    kind: str,
) -> None:
    """Also where the broker counts nothing, and no queue is put beside somebody else's."""
    raw.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
    config, log = tmp_path / "adopted.toml", tmp_path / "handled"
    channels = (
        f'[channels.c]\nmax_attempts = 3\ndead_letter = "{name}-dead"\n'
        f'native.rabbitmq = {{ queue = "{name}" }}\n'
    )
    config.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "rabbitmq"\nurl = "{rabbitmq.url}"\n{channels}'
    )
    open_bus(channels).producer("c").send_many(range(21))

    def all_ended() -> bool:
        return len(set(handled(log))) == 21 and ready_in(raw, f"{name}-dead.default") == 1

    assert [run(all_ended, config, "c", "default", 0, log) for _ in range(4)] == [9, 9, 9, 0]
    times = Counter(handled(log))
    assert times.pop("0") == 3
    assert times.keys() == {str(number) for number in range(1, 21)}
    assert max(times.values()) <= 2
    assert ready_in(raw, f"{name}-dead.default") == 1
    assert [queue for queue in rabbitmq.names() if queue.startswith(f"{name}:")] == []


def test_a_process_that_stood_still_keeps_its_good_connection(
    open_bus: OpenBus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker's silence is judged once the socket was read: less than two heartbeats is fine."""
    caplog.set_level(logging.INFO, "gearshift")
    bus = open_bus(profile="heartbeat_s = 8")
    bus.producer(name).send("slow")
    with bus.consumer(name) as consumer:
        (delivery,) = take(consumer, 1)
        # Holds the interpreter's lock, unlike time.sleep. The broker waits for 16 s or more.
        ctypes.PyDLL(None).sleep(13)
        assert not consumer.receive(timeout_s=1.0)
        delivery.ack()
        consumer.flush()
    assert "connection lost" not in caplog.text


def test_a_message_that_keeps_its_process_still_ends(open_bus: OpenBus, name: str) -> None:
    """Each time the broker drops the connection and gives it again, but no more than twice."""
    bus = open_bus(f"[channels.{name}]\nmax_attempts = 2", profile="heartbeat_s = 1")
    bus.producer(name).send("slow")
    dead = bus.consumer(f"{name}.dead", create=True)
    calls = 0
    with bus.consumer(name) as consumer:
        while not (ended := dead.receive(timeout_s=0.05)):
            for delivery in consumer.receive(timeout_s=0.2):
                calls += 1
                assert calls <= 3
                # Holds the interpreter's lock, unlike time.sleep; for long, as a busy broker takes
                # its time to miss it.
                ctypes.PyDLL(None).sleep(8)
                with contextlib.suppress(StaleDelivery):
                    delivery.ack()
    assert ended[0].value == "slow"
    assert calls == 2
