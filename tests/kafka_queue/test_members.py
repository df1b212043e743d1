"""More workers than partitions: the point of a share group."""

from __future__ import annotations

import threading

import pytest

import gearshift
from gearshift.worker import Worker

from .conftest import Settings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

MEMBERS = 32


def busy_at_once(consumers: list[gearshift.Consumer]) -> int:
    """How many of the consumers have a message in hand at the same time, with plenty waiting."""
    met = threading.Semaphore(0)
    done = threading.Event()

    def work(consumer: gearshift.Consumer) -> None:
        deliveries: list[gearshift.Delivery] = []
        while not deliveries and not done.is_set():
            deliveries = consumer.receive(timeout_s=0.5)
        if deliveries:
            met.release()
            done.wait()  # in hand until everybody has one, or nobody comes any more
            deliveries[0].ack()

    threads = [threading.Thread(target=work, args=(consumer,)) for consumer in consumers]
    for thread in threads:
        thread.start()
    busy = 0
    while busy < len(consumers) and met.acquire(timeout=8.0):
        busy += 1
    done.set()
    for thread in threads:
        thread.join()
    return busy


@pytest.mark.parametrize(("semantics", "expected"), [("queue", MEMBERS), ("stream", 4)])
def test_members_of_a_group_on_four_partitions(
    settings: Settings, name: str, semantics: str, expected: int
) -> None:
    """Of 32 consumers a share group keeps 32 busy, and a consumer group as many as partitions."""
    file = settings("prefetch = 1\nmax_processing_s = 60\nnative.kafka.partitions = 4")
    file.write_text(file.read_text().replace('"queue"', f'"{semantics}"'))
    with gearshift.open(file) as bus:
        bus.producer(name).send_many(range(40 * MEMBERS), key=str)
        consumers = [bus.consumer(name, group="g") for _ in range(MEMBERS)]
        assert busy_at_once(consumers) == expected


def test_a_busy_worker_leaves_the_rest_to_others(settings: Settings, name: str) -> None:
    """Handlers take about as many messages as there are threads, not what the channel allows."""
    app, busy, done = gearshift.App(), threading.Semaphore(0), threading.Event()

    @app.handler(name, group="g", concurrency=2)
    def work(_number: int) -> None:
        busy.release()
        done.wait()

    with gearshift.open(settings("max_processing_s = 60")) as bus:
        worker = Worker(app, bus)
        bus.producer(name).send_many(range(40))
        worker.start()
        assert busy.acquire(timeout=30)
        assert busy.acquire(timeout=30)
        with bus.consumer(name, group="g") as other:
            others = 0
            while others < 38:
                deliveries = other.receive(38, timeout_s=20)
                if not deliveries:
                    break
                for delivery in deliveries:
                    delivery.ack()
                others += len(deliveries)
        done.set()
        worker.stop()
    assert others == 38
