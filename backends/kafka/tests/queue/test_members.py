"""More workers than partitions: the point of a share group."""

from __future__ import annotations

import threading

import pytest
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift import Worker

from .conftest import Settings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

MEMBERS = 32


def busy_at_once(consumers: list[gearshift.Consumer], expected: int) -> int:
    """How many of the consumers have a message in hand at the same time, with plenty waiting.

    As many as are expected are waited for, and then any more for a moment.
    """
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
    while met.acquire(timeout=PATIENCE_S if busy < expected else 3.0):
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
        bus.producer(name).send_many(range(40 * MEMBERS), key_by=str)
        consumers = [bus.consumer(name, group="g") for _ in range(MEMBERS)]
        if semantics == "stream":  # a partition that moves would keep two busy
            shares = [1] * expected + [0] * (MEMBERS - expected)
            assert until(
                lambda: sorted((len(c.partitions) for c in consumers), reverse=True) == shares
            )
        assert busy_at_once(consumers, expected) == expected


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
        try:
            assert busy.acquire(timeout=PATIENCE_S)
            assert busy.acquire(timeout=PATIENCE_S)
            with bus.consumer(name, group="g") as other:
                assert len(ack_all(take(other, 38))) == 38
        finally:
            done.set()
            worker.stop()
