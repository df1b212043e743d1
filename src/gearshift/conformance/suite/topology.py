"""Topology and lifecycle: isolation, names, declaring, closing, coming and going."""

from __future__ import annotations

import threading

from gearshift.conformance.behaviour import Area, behaviour, on_channel
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer
from gearshift.errors import Closed, UnknownChannel


@behaviour(Area.TOPOLOGY, deliveries=20)
def channels_do_not_mix(kit: Kit) -> None:
    """What is sent to one of two channels comes out of that one alone."""
    channels = [kit.channel(), kit.channel()]
    producers = [kit.producer(channel) for channel in channels]
    for _ in range(10):
        for producer in producers:
            producer.send(key="same")
    for channel in channels:
        kit.verify(channel)


@behaviour(Area.TOPOLOGY, deliveries=0)
def a_missing_channel_is_an_error(kit: Kit) -> None:
    """Opening a channel that is not there without leave to create it raises and creates nothing."""
    kit.channel()
    name = kit.fresh("typo")
    bus = kit.connect()
    for made in (bus.producer, bus.consumer):
        with kit.refusal(UnknownChannel, "typo-created", "opening a channel that is not there"):
            made(name, create=False)
        kit.require(not bus.exists(name), "typo-created", "the misspelt channel exists now")


@on_channel(Area.TOPOLOGY, deliveries=1)
def declaring_twice_is_harmless(kit: Kit, channel: str) -> None:
    """The same declaration again changes nothing, with messages in it."""
    kit.producer(channel).send()
    kit.connect().declare(channel, create=True)


@behaviour(Area.TOPOLOGY, deliveries=0)
def a_deleted_channel_is_gone(kit: Kit) -> None:
    """After delete it does not exist; declared again it is empty."""
    channel = kit.channel()
    producer = kit.producer(channel)
    producer.send()
    producer.close()
    bus = kit.connect()
    bus.delete(channel)
    kit.until(lambda: not bus.exists(channel), "the deleted channel still exists")
    bus.declare(channel, create=True)
    with bus.consumer(channel, group="g") as consumer:
        consumer.ready(kit.patience_s)
        kit.require(not consumer.receive(timeout_s=0.5), "phantom", "a deleted message came back")


@on_channel(Area.TOPOLOGY, capability="depth", deliveries=10)
def the_depth_counts_what_is_left(kit: Kit, channel: str) -> None:
    """It rises with what is sent, falls with what is settled; unknown is None, never a guess."""
    if kit.is_stream:
        kit.join(channel)
    kit.producer(channel).send_many(10, keys=["a", "b"])
    if not kit.capabilities.depth:
        status = next(iter(kit.connect().groups(channel)), None)
        told = status and (status.ready if not kit.is_stream else status.lag)
        kit.require(told is None, "depth", f"undeclared, but {told} was told")
    else:
        kit.until(lambda: kit.depth(channel, "g") == 10, "the depth is not 10")
        with kit.consumer(channel) as consumer:
            kit.ack(consumer, 4)
        kit.until(lambda: kit.depth(channel, "g") == 6, "the depth is not 6 after 4 acks")


def _purge(kit: Kit, channel: str, _: RecordingConsumer) -> None:
    kit.connect().purge(channel, "g")


@behaviour(Area.TOPOLOGY, capability="purge", refused=_purge, deliveries=3)
def a_purge_throws_away_what_waits(kit: Kit) -> None:
    """Only for the group named; what is sent afterwards comes."""
    channel = kit.channel(groups=("g", "h"))
    producer = kit.producer(channel)
    for group in ("g", "h"):
        kit.join(channel, group)
    producer.send_many(5, keys=["a"])
    old = frozenset(kit.history.published(channel))
    kit.connect().purge(channel, "g")
    producer.send_many(3, keys=["a"])
    new = frozenset(kit.history.published(channel)) - old
    kit.verify(channel, "g", expected=new)
    got = {event.id for event in kit.history.delivered(channel, "g")}
    kit.require(not got & old, "phantom", "a purged message was delivered")
    kit.verify(channel, "h")


@on_channel(Area.CLOSE, deliveries=1)
def closing_twice_is_harmless(kit: Kit, channel: str) -> None:
    """Producers, consumers and buses can be closed again."""
    producer = kit.producer(channel)
    producer.send()
    consumer = kit.consumer(channel)
    kit.ack(consumer, 1)
    bus = kit.connect()
    for closable in (producer.producer, consumer, consumer.consumer, bus):
        closable.close()
        closable.close()


@on_channel(Area.CLOSE, deliveries=5)
def a_closed_consumer_gives_nothing_more(kit: Kit, channel: str) -> None:
    """receive raises Closed, iterate ends, a waiting thread is let go, and nothing is lost."""
    consumer = kit.consumer(channel)
    ended = threading.Event()

    def wait() -> None:
        for _ in consumer.consumer.iterate(idle_timeout_s=None):
            pass
        ended.set()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    consumer.close()
    kit.require(ended.wait(kit.patience_s), "after-close", "iterate did not end with close")
    kit.producer(channel).send_many(5, keys=["a"])
    with kit.refusal(Closed, "after-close", "receive after close"):
        consumer.receive(5, timeout_s=1.0)


@on_channel(Area.CLOSE, deliveries=12)
def what_was_fetched_is_not_delivered_after_close(kit: Kit, channel: str) -> None:
    """Messages that lay in the consumer's buffer when it was closed go to the next one."""
    kit.producer(channel).send_many(10, keys=["a", "b"])
    consumer = kit.consumer(channel, prefetch=10)
    kit.take(consumer, 2)
    consumer.close()
    with kit.refusal(Closed, "after-close", "receive after close"):
        consumer.receive(10, timeout_s=0.2)


@on_channel(Area.CLOSE, deliveries=50)
def consumers_come_and_go(kit: Kit, channel: str) -> None:
    """Ten consumers, one after the other, each settle some and close; nothing is lost between."""
    kit.producer(channel).send_many(50, keys=[f"k{n}" for n in range(9)])
    for _ in range(10):
        with kit.consumer(channel, prefetch=8) as consumer:
            deliveries = consumer.receive(4, timeout_s=kit.patience_s / 3)
            for delivery in deliveries[:3]:
                consumer.ack(delivery)
