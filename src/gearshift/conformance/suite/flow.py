"""Batches and backpressure: sizes, limits, and who waits for whom."""

from __future__ import annotations

import contextlib
import threading
import time

from gearshift.capabilities import Lease
from gearshift.conformance.behaviour import Area, on_channel
from gearshift.conformance.kit import Kit
from gearshift.errors import StaleDelivery
from gearshift.message import Receipt


@on_channel(Area.BATCHES, deliveries=1000)
def a_large_batch_arrives_whole(kit: Kit, channel: str) -> None:
    """A thousand messages in one send_many: a receipt each, in order, each delivered once."""
    results = kit.producer(channel).send_many(1000, keys=["a", "b", "c", "d"])
    missing = sum(not isinstance(result, Receipt) for result in results)
    kit.require(missing == 0, "unresolved", f"{missing} of 1000 results are no receipts")


@on_channel(Area.BATCHES, deliveries=100)
def receive_gives_at_most_what_was_asked(kit: Kit, channel: str) -> None:
    """Batches of any size up to the one asked for add up to everything."""
    kit.producer(channel).send_many(100, keys=["a"])
    consumer = kit.consumer(channel, prefetch=50)
    for size in (1, 7, 50):
        deliveries = consumer.receive(size, timeout_s=kit.patience_s)
        kit.require(0 < len(deliveries) <= size, "batch-size", f"{len(deliveries)} of {size}")
        for delivery in deliveries:
            consumer.ack(delivery)


@on_channel(Area.BACKPRESSURE, capability="prefetch", deliveries=20)
def no_more_than_prefetch_is_unsettled(kit: Kit, channel: str) -> None:
    """Three of twenty come; a fourth only when one of them is settled."""
    kit.producer(channel).send_many(20, keys=[f"k{n}" for n in range(7)])
    consumer = kit.consumer(channel, prefetch=3)
    held = kit.take(consumer, 3)
    while held:
        more = consumer.receive(10, timeout_s=0.05)
        kit.require(not more, "over-prefetch", f"{len(more)} came beyond a prefetch of 3")
        consumer.ack(held.pop(0))
        if len(kit.history.finished(channel, "g")) + len(held) < 20:
            held += kit.take(consumer, 1)


@on_channel(Area.BACKPRESSURE, deliveries=1)
def prefetch_one_withholds_from_a_busy_consumer(kit: Kit, channel: str) -> None:
    """While a consumer with prefetch 1 works, another member gets the rest of a queue."""
    busy = kit.consumer(channel, prefetch=1)
    kit.producer(channel).send_many(10, keys=[f"k{n}" for n in range(10)])
    first = kit.one(busy)
    if not kit.is_stream:  # a stream's partitions stay with their owner
        other = kit.consumer(channel, prefetch=1)
        for _ in range(9):
            kit.ack(other, 1)
    busy.ack(first)


@on_channel(Area.BACKPRESSURE, deliveries=1000)
def a_slow_consumer_keeps_everything_bounded(kit: Kit, channel: str) -> None:
    """A producer far ahead of its consumer loses nothing, and what is in hand stays bounded."""
    producer = kit.producer(channel)
    consumer = kit.consumer(channel, prefetch=10)
    sender = threading.Thread(target=lambda: producer.send_many(1000, keys=["a", "b", "c", "d"]))
    sender.start()
    while len(kit.history.finished(channel, "g")) < 100:
        time.sleep(0.001)
        for delivery in consumer.receive(10, timeout_s=0.05):
            consumer.ack(delivery)
    sender.join()


@on_channel(Area.BACKPRESSURE, capability="lease", deliveries=2)
def a_slow_handler_keeps_its_delivery(kit: Kit, channel: str) -> None:
    """Work that outlasts the lease of a dead worker is not taken away, and its ack counts."""
    kit.producer(channel).send_many(2, keys=["a"])
    consumer = kit.consumer(channel)
    held = kit.take(consumer, 2)
    # Where the broker's limit is fixed, work must at least be allowed to take longer than a poll.
    is_fixed = kit.capabilities.lease is Lease.FIXED
    over_at = time.monotonic() + (1.0 if is_fixed else 1.5 * kit.harness.lease_s)
    rival = kit.consumer(channel) if not kit.is_stream else None  # it would move a stream's owner
    while (left_s := over_at - time.monotonic()) > 0:
        if rival is None:
            time.sleep(left_s)
        else:
            taken = rival.receive(timeout_s=left_s)
            kit.require(not taken, "lease", "another consumer got what is being worked on")
    for delivery in held:
        with contextlib.suppress(StaleDelivery):
            consumer.ack(delivery)
    late = sum(delivery.outcome != "ack" for delivery in held)
    kit.require(not late, "lease", f"{late} of 2 acks of long work came too late")
