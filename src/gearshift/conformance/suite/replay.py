"""Replay: reading again what was settled."""

from __future__ import annotations

import time

from gearshift.conformance.behaviour import Area, behaviour, on_channel
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer
from gearshift.driver import Start, StartAt


def _seek(_: Kit, __: str, consumer: RecordingConsumer) -> None:
    consumer.seek(Start())


@on_channel(Area.REPLAY, capability="seek", refused=_seek, deliveries=40)
def seek_to_the_start_reads_everything_again(kit: Kit, channel: str) -> None:
    """All twenty come a second time, in order, though all were settled."""
    kit.producer(channel).send_many(20, keys=["a", "b"])
    consumer = kit.consumer(channel)
    first = kit.ack(consumer, 20)
    consumer.seek(Start())
    second = kit.ack(consumer, 20)
    kit.require(sorted(first) == sorted(second), "replay", "the second reading differs")


@on_channel(Area.REPLAY, capability="seek", refused=_seek, deliveries=13)
def seek_to_an_offset_continues_there(kit: Kit, channel: str) -> None:
    """From the offset of the eighth delivery of a key, exactly the rest comes again."""
    kit.producer(channel).send_many(10, keys=["a"])
    consumer = kit.consumer(channel)
    deliveries = kit.take(consumer, 10)
    for delivery in deliveries:
        consumer.ack(delivery)
    place = deliveries[7].position
    assert place is not None
    consumer.seek(Start.at_offsets({place.partition: place.offset}))
    again = kit.ack(consumer, 3)
    kit.require(again == [d.id for d in deliveries[7:]], "replay", f"came again: {again}")


@on_channel(Area.REPLAY, capability="seek", refused=_seek, deliveries=15)
def seek_to_a_time_continues_there(kit: Kit, channel: str) -> None:
    """From a moment between two batches, exactly the second comes again."""
    producer = kit.producer(channel)
    producer.send_many(5, keys=["a", "b", "c"])
    time.sleep(1.1)  # brokers keep times in whole seconds at worst
    between_ms = int(time.time() * 1000)
    time.sleep(1.1)
    producer.send_many(5, keys=["a", "b", "c"])
    wanted = list(kit.history.published(channel))[5:]
    consumer = kit.consumer(channel)
    kit.ack(consumer, 10)
    consumer.seek(Start(StartAt.TIME, time_ms=between_ms))
    again = kit.ack(consumer, 5)
    kit.require(sorted(again) == sorted(wanted), "replay", f"came again: {len(again)}")


@behaviour(Area.REPLAY, capability="seek", refused=_seek, deliveries=6)
def seek_to_the_end_skips(kit: Kit) -> None:
    """What lies behind is not delivered any more; what is sent from now on is."""
    channel = kit.channel()
    producer = kit.producer(channel)
    producer.send_many(10, keys=["a"])
    old = frozenset(kit.history.published(channel))
    consumer = kit.consumer(channel, prefetch=5)
    kit.take(consumer, 5)
    consumer.seek(Start(StartAt.LATEST))
    producer.send_many(3, keys=["a"])
    new = set(kit.history.published(channel)) - old
    kit.require(set(kit.ack(consumer, 3)) == new, "replay", "what came was not what was sent")


@behaviour(Area.REPLAY, capability="replay", deliveries=20)
def a_replay_by_one_group_leaves_the_others_alone(kit: Kit) -> None:
    """One group reads its history again; the other's place is where it was."""
    channel = kit.channel(groups=("g", "h"))
    kit.producer(channel).send_many(10, keys=["a", "b"])
    kit.drain(channel, "g")
    kit.drain(channel, "h")
    if kit.capabilities.replay:
        consumer = kit.consumer(channel, "h")
        consumer.seek(Start())
        kit.ack(consumer, 10)
    kit.verify(channel, "g")
    kit.verify(channel, "h")
