"""Groups: fan-out, late joiners, and what outlives a consumer."""

from __future__ import annotations

from gearshift.bus import Bus
from gearshift.conformance.behaviour import Area, behaviour, on_channel
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer
from gearshift.errors import UnknownGroup


@behaviour(Area.GROUPS, capability="fan_out", deliveries=60)
def every_group_gets_every_message(kit: Kit) -> None:
    """Two groups each get all of it; what one settles the other still has."""
    channel = kit.channel(groups=("g", "h"))
    kit.producer(channel).send_many(30, keys=["a", "b"])
    kit.verify(channel, "g")
    kit.verify(channel, "h")


@on_channel(Area.GROUPS, capability="durable_group", deliveries=20)
def a_group_keeps_its_place_without_consumers(kit: Kit, channel: str) -> None:
    """What is sent while no consumer is there waits; what was settled before does not return."""
    producer = kit.producer(channel)
    producer.send_many(10, keys=["a", "b", "c"])
    with kit.consumer(channel) as consumer:
        kit.ack(consumer, 10)
    producer.send_many(10, keys=["a", "b", "c"])


@on_channel(Area.GROUPS, deliveries=10)
def a_declared_group_waits_for_its_first_consumer(kit: Kit, channel: str) -> None:
    """What was sent before anybody ever consumed is delivered."""
    kit.producer(channel).send_many(10, keys=["a"])


@behaviour(Area.GROUPS, capability="replay", deliveries=10)
def a_new_group_sees_history(kit: Kit) -> None:
    """On a stream a group that comes late gets everything, settled by others or not."""
    channel = kit.channel(groups=("g", "late") if not kit.capabilities.replay else ("g",))
    kit.producer(channel).send_many(10, keys=["a", "b"])
    kit.drain(channel, "g")
    if kit.capabilities.replay:
        kit.verify(channel, "late")
    else:
        kit.verify(channel, "g")


@behaviour(Area.GROUPS)
def an_undeclared_group_of_a_queue_is_refused(kit: Kit) -> None:
    """A misspelt group would fill a queue for ever; on a stream any group may come."""
    channel = kit.channel()
    kit.producer(channel).send()
    bus = kit.connect()
    if kit.is_stream:
        kit.verify(channel, "anyone")
        return
    with kit.refusal(UnknownGroup, "typo-created", "a consumer of an undeclared group"):
        bus.consumer(channel, group="bilingg")
    groups = {status.group for status in bus.groups(channel)}
    kit.require("bilingg" not in groups, "typo-created", "the misspelt group exists now")
    kit.producer(channel).send()
    kit.verify(channel)


def _sneak(kit: Kit, channel: str, _: RecordingConsumer) -> None:
    kit.connect().consumer(channel, ephemeral=True)


@on_channel(Area.GROUPS, capability="ephemeral_group", refused=_sneak, deliveries=5)
def an_ephemeral_reader_takes_nothing_and_leaves_nothing(kit: Kit, channel: str) -> None:
    """It sees what is sent from now on; the groups still get all, and it is gone when closed."""
    producer = kit.producer(channel)
    bus = kit.connect()
    kit.join(channel)
    before = _groups(bus, channel)
    with bus.consumer(channel, ephemeral=True, start="latest") as reader:
        reader.ready(kit.patience_s)
        producer.send_many(5, keys=["a", "b"])
        seen: list[str | None] = []
        for delivery in reader.iterate(idle_timeout_s=kit.patience_s):
            seen.append(delivery.id)
            delivery.ack()
            if len(seen) == 5:
                break
    kit.require(len(seen) == 5, "leak", f"the ephemeral reader saw {len(seen)} messages of 5")
    kit.require(_groups(bus, channel) <= before, "leak", "an ephemeral group stayed behind")


def _groups(bus: Bus, channel: str) -> set[str]:
    return {status.group for status in bus.groups(channel)}
