"""Connections cut, held and slowed for real, under load. Nothing may be lost."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from pathlib import Path

from gearshift.conformance.behaviour import Area, Needs, behaviour, on_channel
from gearshift.conformance.history import Phase
from gearshift.conformance.kit import Kit
from gearshift.conformance.load import AFTER, BEFORE, under_load
from gearshift.errors import StaleDelivery


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=BEFORE)
def a_reset_before_the_confirm_is_no_false_success(kit: Kit) -> None:
    """Connections reset while answers are on their way: sent again under the same id."""
    with under_load(kit, after=0) as load:
        for _ in range(3):
            kit.fault("reset as the next answer comes")
            kit.cable.cut_after(1)
            load.advance(30)
    kit.require(kit.cable.cuts > 0, "vacuous", "the proxy cut nothing")


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=BEFORE)
def swallowed_confirms_are_unknown_not_ok(kit: Kit) -> None:
    """Requests arrive and no answer comes back: sends end at their deadline, as unknown."""
    with under_load(kit, send_timeout_s=2.0) as load:
        kit.fault("answers are held back")
        kit.cable.hold(answers_only=True)
        try:
            kit.until(
                lambda: kit.history.published(load.channel, Phase.INFO, Phase.FAIL),
                "no send ended while its confirms were held back",
            )
        finally:
            kit.cable.cut()
            kit.cable.release()


@on_channel(Area.FAULTS, needs=Needs.CABLE, deliveries=4)
def a_reset_consumer_gives_its_work_back(kit: Kit, channel: str) -> None:
    """The connection of a consumer that holds unsettled work is reset: it is done by somebody."""
    kit.producer(channel).send_many(20, keys=["a", "b", "c", "d"])
    consumer = kit.consumer(channel, prefetch=10)
    held = kit.take(consumer, 4)
    kit.fault("the consumer's connection is reset")
    kit.cable.cut()
    for delivery in held:
        with contextlib.suppress(StaleDelivery):
            consumer.ack(delivery)


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=BEFORE)
def a_slow_network_and_a_slow_handler_lose_nothing(kit: Kit) -> None:
    """Little bandwidth and slow work at once: nothing is taken away, lost or doubled in silence."""
    with under_load(kit, work_s=0.005) as load:
        kit.fault("the network is slow")
        kit.cable.slow(50_000)
        try:
            load.advance(AFTER)
        finally:
            kit.cable.slow(None)


@behaviour(Area.FAULTS, needs=Needs.CABLE, deliveries=BEFORE)
def repeated_cuts_leak_nothing(kit: Kit) -> None:
    """A cut every two seconds: it goes on each time, and no thread or descriptor is left over."""
    channel = kit.channel()
    before = _resources()
    with under_load(kit, channel, after=0) as load:
        for _ in range(4):
            kit.fault("every connection is cut")
            kit.cable.cut()
            time.sleep(2.0)
            load.advance(10)
    kit.close()
    kit.until(
        lambda: all(now <= then for now, then in zip(_resources(), before, strict=True)),
        f"threads and descriptors: {before} before, more after",
    )


def _resources() -> tuple[int, int]:
    """Threads and open descriptors of this process."""
    gc.collect()
    descriptors = Path("/proc/self/fd")
    count = len(os.listdir(descriptors)) if descriptors.exists() else 0
    return threading.active_count(), count
