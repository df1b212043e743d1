"""Workers killed and frozen for real, and a channel deleted under them. Nothing may be lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import Any

from gearshift.capabilities import Known
from gearshift.conformance.behaviour import Area, Needs, behaviour, on_channel
from gearshift.conformance.kit import Kit
from gearshift.conformance.load import BEFORE, under_load
from gearshift.conformance.recording import RecordingProducer
from gearshift.conformance.worker import ConsumerProcess
from gearshift.delivery import Delivery
from gearshift.errors import GearshiftError
from gearshift.message import Receipt

_DEATHS = 3

#: How often a worker is stopped until others are found to be able to go on.
_FREEZES = 3


@on_channel(Area.FAULTS, capability="redelivery", needs=Needs.WORKERS, deliveries=20)
def a_killed_worker_loses_nothing(kit: Kit, channel: str) -> None:
    """SIGKILL of a process in its handler: what it held goes to another."""
    kit.producer(channel).send_many(20, keys=["a", "b", "c", "d"])
    worker = kit.worker(channel, work_s=3600.0)
    kit.until(worker.deliveries, "the worker got nothing")
    kit.kill(worker)


@behaviour(Area.FAULTS, capability="attempt", needs=Needs.WORKERS, deliveries=10)
def a_message_that_kills_ends_alone(kit: Kit) -> None:
    """Its third worker's death makes it a dead letter; its neighbours are handled, twice at most.

    Where a queue's attempts are not known, it is only shown that the neighbours come.
    """
    channel = kit.channel(max_attempts=_DEATHS)
    producer = kit.producer(channel)
    killer = str(producer.send(key="a").id)
    producer.send_many(10, keys=["b", "c", "d"])
    counts = kit.is_stream or kit.capabilities.attempt is not Known.NONE
    for _ in range(_DEATHS if counts else 1):
        kit.fault("a message kills its worker")
        worker = kit.worker(channel, work_s=0.0, killer=killer)
        worker.wait(2 * kit.patience_s + kit.harness.lease_s)
        kit.adopt(worker)
    neighbours = frozenset(kit.history.published(channel)) - {killer}
    if counts:
        kit.drain(channel, expected=neighbours)
        with kit.consumer(channel) as consumer:
            letters = [letter.id for letter in kit.letters(channel, asking=consumer)]
        kit.require(letters == [killer], "dead-letter", f"dead letters are {letters}")
        times = Counter(event.id for event in kit.history.delivered(channel, "g"))
        kit.require(times[killer] == _DEATHS, "attempt-count", f"it came {times[killer]} times")
        most = max(times[id] for id in neighbours)
        kit.require(most <= 2, "attempt-count", f"a neighbour came {most} times")
    else:
        kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.WORKERS, deliveries=20)
def a_frozen_worker_harms_nobody(kit: Kit) -> None:
    """SIGSTOP past the lease: another does its work; what it says when it wakes changes nothing."""
    channel = kit.channel()
    producer = kit.producer(channel)
    producer.send_many(20, keys=["a", "b", "c", "d"])
    worker = kit.worker(channel, work_s=1.0, action="retry")
    kit.until(worker.deliveries, "the worker got nothing")
    kit.fault("SIGSTOP of a worker")
    _freeze(kit, worker, producer)
    frozen = {event.id for event in worker.deliveries()}
    other = kit.consumer(channel)
    deadline = time.monotonic() + kit.patience_s + kit.harness.lease_s
    missing = set(kit.history.published(channel))
    held: list[Delivery[Any]] = []
    while missing and time.monotonic() < deadline:
        for delivery in other.receive(10, timeout_s=0.1):
            missing.discard(str(delivery.id))
            if delivery.id in frozen and not kit.is_stream:
                held.append(delivery)
            else:
                other.ack(delivery)
    kit.require(not missing - frozen, "lost", f"{len(missing)} messages stayed with the worker")
    worker.signal(SIGCONT)
    worker.signal(SIGTERM)
    worker.wait(kit.patience_s)
    for delivery in held:
        other.ack(delivery)
    other.close()
    kit.adopt(worker)
    before = len(kit.history.delivered(channel, "g"))
    kit.verify(channel)
    again = {event.id for event in kit.history.delivered(channel, "g")[before:]}
    taken = {delivery.id for delivery in held}
    kit.require(
        not again & taken,
        "stale-settle",
        "a message that its new owner had acked came again, because its old one asked for that",
    )


@behaviour(Area.FAULTS, needs=Needs.WORKERS, deliveries=BEFORE)
def members_that_join_and_leave_lose_nothing(kit: Kit) -> None:
    """Consumers come and go under load, one of them killed each time."""
    with under_load(kit, before=100, after=0, members=1) as load:
        for _ in range(2):
            worker = kit.worker(load.channel, work_s=0.01)
            with kit.consumer(load.channel, prefetch=1):  # holds a key at most: it does not work
                load.advance(50)
            kit.until(worker.deliveries, "the worker got nothing")
            kit.kill(worker)
            load.advance(50)


@behaviour(Area.FAULTS, needs=Needs.WORKERS, deliveries=1)
def a_deleted_channel_is_noticed(kit: Kit) -> None:
    """Its consumer raises, or goes on once the channel is there again; it does not fall silent."""
    channel = kit.channel()
    producer = kit.producer(channel)
    consumer = kit.consumer(channel)
    producer.send()
    kit.ack(consumer, 1)
    kit.fault("the channel is deleted")
    bus = kit.connect()
    bus.delete(channel)
    time.sleep(1.0)  # some brokers confuse a queue with its namesake of a moment ago
    bus.declare(channel, create=True)
    again = kit.producer(channel, bus)
    noticed = threading.Event()

    def watch() -> None:
        with contextlib.suppress(GearshiftError):
            while not consumer.consumer.receive(timeout_s=0.2):
                continue
        noticed.set()

    threading.Thread(target=watch, daemon=True).start()
    deadline = time.monotonic() + kit.patience_s
    while not noticed.wait(0.5) and time.monotonic() < deadline:
        again.send(timeout_s=kit.patience_s)
    kit.require(noticed.is_set(), "lost", "the consumer of a deleted channel heard nothing more")


def _freeze(kit: Kit, worker: ConsumerProcess, producer: RecordingProducer) -> None:
    """Stop it between two writes: one to a file that it shares may hold up all, on any system."""
    for _ in range(_FREEZES):
        worker.signal(SIGSTOP)
        (result,) = producer.send_many(1)
        if isinstance(result, Receipt):
            return
        worker.signal(SIGCONT)
    kit.require(False, "lost", "nothing can be sent while a worker is stopped")
