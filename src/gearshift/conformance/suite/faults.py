"""Faults: brokers, networks and workers broken for real, under load. Nothing may be lost."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

from gearshift.capabilities import Known
from gearshift.conformance.behaviour import Area, Needs, behaviour
from gearshift.conformance.harness import BrokerProcess, Cable, Faults
from gearshift.conformance.history import Event, Kind, Phase
from gearshift.conformance.kit import Kit
from gearshift.conformance.load import Load
from gearshift.conformance.recording import RecordingProducer
from gearshift.conformance.worker import WorkerProcess
from gearshift.delivery import Delivery
from gearshift.errors import ConnectionFailed, GearshiftError, StaleDelivery
from gearshift.message import Receipt

#: Messages before a fault: enough for the broker to have settled down after the declaration.
_BEFORE = 300
_AFTER = 100

_DEATHS = 3

#: How often a worker is stopped until others are found to be able to go on.
_FREEZES = 3


@behaviour(Area.FAULTS, capability="durability", needs=Needs.BROKER, deliveries=_BEFORE)
def a_killed_broker_loses_nothing(kit: Kit) -> None:
    """SIGKILL while sending and consuming; after the restart both sides go on by themselves."""
    broker = _broker(kit)
    channel = kit.channel()
    with Load(kit, channel) as load:
        load.advance(_BEFORE)
        kit.fault("SIGKILL of the broker")
        broker.kill()
        broker.start()
        load.advance(_AFTER)
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.BROKER, deliveries=_BEFORE)
def a_frozen_broker_loses_nothing(kit: Kit) -> None:
    """SIGSTOP for longer than the heartbeat, then SIGCONT: both sides go on."""
    broker = _broker(kit)
    channel = kit.channel()
    with Load(kit, channel) as load:
        load.advance(_BEFORE)
        kit.fault("SIGSTOP of the broker")
        broker.pause()
        try:
            time.sleep(2.5 * _faults(kit).heartbeat_s)
        finally:
            broker.resume()
        load.advance(_AFTER)
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.BROKER)
def a_broker_that_is_down_is_one_clear_error(kit: Kit) -> None:
    """Opening a producer raises ConnectionFailed at its deadline; with the broker it works."""
    broker = _broker(kit)
    channel = kit.channel()
    kit.producer(channel).send()
    time.sleep(2.0)
    kit.fault("the broker is down")
    broker.kill()
    try:
        with kit.refusal(ConnectionFailed, "error", "opening a producer without a broker"):
            kit.connect().producer(channel, timeout_s=2.0)
    finally:
        broker.start()
    kit.producer(channel).send()
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=_BEFORE)
def a_reset_before_the_confirm_is_no_false_success(kit: Kit) -> None:
    """Connections reset while answers are on their way: sent again under the same id."""
    cable = _cable(kit)
    channel = kit.channel()
    with Load(kit, channel) as load:
        load.advance(_BEFORE)
        for _ in range(3):
            kit.fault("reset as the next answer comes")
            cable.cut_after(1)
            load.advance(30)
    kit.require(cable.cuts > 0, "vacuous", "the proxy cut nothing")
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=_BEFORE)
def swallowed_confirms_are_unknown_not_ok(kit: Kit) -> None:
    """Requests arrive and no answer comes back: sends end at their deadline, as unknown."""
    cable = _cable(kit)
    channel = kit.channel()
    with Load(kit, channel, send_timeout_s=2.0) as load:
        load.advance(_BEFORE)
        kit.fault("answers are held back")
        cable.hold(answers_only=True)
        try:
            unknown = {Phase.INFO, Phase.FAIL}
            kit.until(
                lambda: any(
                    event.phase in unknown for event in kit.history.published(channel).values()
                ),
                "no send ended while its confirms were held back",
            )
        finally:
            cable.cut()
            cable.release()
        load.advance(_AFTER)
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=4)
def a_reset_consumer_gives_its_work_back(kit: Kit) -> None:
    """The connection of a consumer that holds unsettled work is reset: it is done by somebody."""
    cable = _cable(kit)
    channel = kit.channel()
    kit.producer(channel).send_many(20, keys=["a", "b", "c", "d"])
    consumer = kit.consumer(channel, prefetch=10)
    held = kit.take(consumer, 4)
    kit.fault("the consumer's connection is reset")
    cable.cut()
    for delivery in held:
        try:
            consumer.ack(delivery)
        except StaleDelivery:
            continue
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=_BEFORE)
def a_slow_network_and_a_slow_handler_lose_nothing(kit: Kit) -> None:
    """Little bandwidth and slow work at once: nothing is taken away, lost or doubled in silence."""
    cable = _cable(kit)
    channel = kit.channel()
    with Load(kit, channel, work_s=0.005) as load:
        load.advance(_BEFORE)
        kit.fault("the network is slow")
        cable.slow(50_000)
        try:
            load.advance(_AFTER)
        finally:
            cable.slow(None)
        load.advance(_AFTER)
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=_BEFORE)
def repeated_cuts_leak_nothing(kit: Kit) -> None:
    """A cut every two seconds: it goes on each time, and no thread or descriptor is left over."""
    cable = _cable(kit)
    channel = kit.channel()
    before = _resources()
    with Load(kit, channel) as load:
        load.advance(_BEFORE)
        for _ in range(4):
            kit.fault("every connection is cut")
            cable.cut()
            time.sleep(2.0)
            load.advance(10)
    kit.verify(channel)
    kit.close()
    kit.until(
        lambda: all(now <= then for now, then in zip(_resources(), before, strict=True)),
        f"threads and descriptors: {before} before, more after",
    )


@behaviour(Area.FAULTS, capability="redelivery", needs=Needs.WORKERS, deliveries=20)
def a_killed_worker_loses_nothing(kit: Kit) -> None:
    """SIGKILL of a process in its handler: what it held goes to another."""
    channel = kit.channel()
    kit.producer(channel).send_many(20, keys=["a", "b", "c", "d"])
    worker = kit.worker(channel, work_s=3600.0)
    _until_busy(kit, worker)
    kit.fault("SIGKILL of a worker")
    worker.signal(SIGKILL)
    worker.wait(kit.patience_s)
    kit.adopt(worker)
    kit.verify(channel)


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
    worker = kit.worker(channel, work_s=1.0, verdict="retry")
    _until_busy(kit, worker)
    kit.fault("SIGSTOP of a worker")
    _freeze(kit, worker, producer)
    frozen = {event.id for event in _deliveries(worker.events())}
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


@behaviour(Area.FAULTS, needs=Needs.WORKERS, deliveries=_BEFORE)
def members_that_join_and_leave_lose_nothing(kit: Kit) -> None:
    """Consumers come and go under load, one of them killed each time."""
    channel = kit.channel()
    with Load(kit, channel, members=1) as load:
        load.advance(100)
        for _ in range(2):
            worker = kit.worker(channel, work_s=0.01)
            with kit.consumer(channel, prefetch=1):  # holds a key at most: it does not work
                load.advance(50)
            _until_busy(kit, worker)
            kit.fault("SIGKILL of a member")
            worker.signal(SIGKILL)
            worker.wait(kit.patience_s)
            kit.adopt(worker)
            load.advance(50)
    kit.verify(channel)


@behaviour(Area.FAULTS, needs=Needs.WORKERS, deliveries=1)
def a_deleted_channel_is_noticed(kit: Kit) -> None:
    """Its consumer raises, or goes on once the channel is there again; it does not fall silent."""
    channel = kit.channel()
    producer = kit.producer(channel)
    consumer = kit.consumer(channel)
    producer.send()
    consumer.ack(kit.take(consumer, 1)[0])
    consumer.flush()
    kit.fault("the channel is deleted")
    bus = kit.connect()
    bus.delete(channel)
    time.sleep(1.0)  # some brokers confuse a queue with its namesake of a moment ago
    bus.declare(channel, create=True)
    again = kit.producer(channel, bus)
    noticed = threading.Event()

    def watch() -> None:
        try:
            while not consumer.consumer.receive(timeout_s=0.2):
                continue
        except GearshiftError:
            pass
        noticed.set()

    threading.Thread(target=watch, daemon=True).start()
    deadline = time.monotonic() + kit.patience_s
    while not noticed.wait(0.5) and time.monotonic() < deadline:
        again.send(timeout_s=kit.patience_s)
    kit.require(noticed.is_set(), "lost", "the consumer of a deleted channel heard nothing more")


def _broker(kit: Kit) -> BrokerProcess:
    broker = _faults(kit).broker
    assert broker is not None
    return broker


def _cable(kit: Kit) -> Cable:
    cable = _faults(kit).cable
    assert cable is not None
    return cable


def _faults(kit: Kit) -> Faults:
    assert kit.harness.faults is not None
    return kit.harness.faults


def _until_busy(kit: Kit, worker: WorkerProcess) -> None:
    kit.until(lambda: _deliveries(worker.events()), "the worker got nothing")


def _freeze(kit: Kit, worker: WorkerProcess, producer: RecordingProducer) -> None:
    """Stop it between two writes: one to a file that it shares may hold up all, on any system."""
    for _ in range(_FREEZES):
        worker.signal(SIGSTOP)
        (result,) = producer.send_many(1)
        if isinstance(result, Receipt):
            return
        worker.signal(SIGCONT)
    kit.require(False, "lost", "nothing can be sent while a worker is stopped")


def _deliveries(events: list[Event]) -> list[Event]:
    return [event for event in events if event.kind is Kind.DELIVER]


def _resources() -> tuple[int, int]:
    """Threads and open descriptors of this process."""
    gc.collect()
    descriptors = Path("/proc/self/fd")
    count = len(os.listdir(descriptors)) if descriptors.exists() else 0
    return threading.active_count(), count
