"""Order of first deliveries, where it is declared."""

from __future__ import annotations

import threading
import time
from functools import partial

from gearshift._observe.threads import working
from gearshift.capabilities import Members, Order
from gearshift.conformance.behaviour import Area, on_channel
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer
from gearshift.message import Key


@on_channel(Area.ORDER, capability="order", deliveries=200)
def one_consumer_gets_each_key_in_order(kit: Kit, channel: str) -> None:
    """First deliveries of every producer's key are in the order of sending."""
    for _ in range(2):
        kit.producer(channel).send_many(100, keys=["a", "b", "c", "d", "e"])


@on_channel(Area.ORDER, capability="order", deliveries=300)
def many_consumers_get_each_key_in_order(kit: Kit, channel: str) -> None:
    """With four members first deliveries of a key keep their order if that is declared."""
    members = [kit.consumer(channel, prefetch=5) for _ in range(4)]
    kit.producer(channel).send_many(300, keys=[f"k{n}" for n in range(12)])
    _ack_all(kit, channel, members)


@on_channel(Area.ORDER, deliveries=40, retries=2)
def a_retry_keeps_its_key_in_order_on_a_stream(kit: Kit, channel: str) -> None:
    """On a stream what follows a retried message of its key waits; a queue loses nothing."""
    kit.producer(channel).send_many(40, keys=["a", "b"])
    order = list(kit.history.published(channel))
    failing = {order[0], order[1]}
    acked: dict[Key | None, list[str]] = {"a": [], "b": []}
    consumer = kit.consumer(channel)
    while len(kit.history.finished(channel, "g")) < 40:
        delivery = kit.one(consumer)
        if delivery.id in failing:
            failing.discard(delivery.id)
            consumer.retry(delivery, 0.05)
        else:
            acked[delivery.key].append(str(delivery.id))
            consumer.ack(delivery)
    if kit.is_stream and kit.capabilities.order is Order.KEY:
        for key, ids in acked.items():
            kit.require(
                ids == sorted(ids, key=order.index),
                "first-delivery-order",
                f"key {key!r} was settled out of order after a retry",
            )


@on_channel(Area.ORDER, capability="members", deliveries=60)
def a_group_shares_its_messages(kit: Kit, channel: str) -> None:
    """Six members split sixty messages with no message at two of them."""
    members = [kit.consumer(channel, prefetch=1) for _ in range(6)]
    kit.producer(channel).send_many(60, keys=[f"k{n}" for n in range(30)])
    wanted = 6 if kit.capabilities.members is Members.ANY else 2
    _ack_all(kit, channel, members, at_once=wanted)
    busy = {event.who for event in kit.history.delivered(channel, "g")}
    if kit.capabilities.members is Members.ANY:
        kit.require(len(busy) == 6, "competing", f"only {len(busy)} of 6 members got work")
    else:
        kit.require(len(busy) > 1, "competing", "one member got everything")


def _ack_all(kit: Kit, channel: str, members: list[RecordingConsumer], *, at_once: int = 1) -> None:
    """Ack on a thread per member until everything stored is finished.

    Nothing is acked before ``at_once`` members have a message: one that is quick might get all.
    """
    wanted = kit.history.published(channel).keys()
    all_busy = threading.Event()

    def hold() -> None:
        if len({event.who for event in kit.history.delivered(channel, "g")}) >= at_once:
            all_busy.set()
        elif not all_busy.wait(kit.patience_s / 2):
            all_busy.set()  # it will not be so

    def before() -> None:
        if not all_busy.is_set():
            hold()
        time.sleep(0.005)

    with working(*(partial(member.work, batch=5, before=before) for member in members)):
        kit.until(lambda: kit.history.finished(channel, "g") >= wanted, "not all was delivered")
