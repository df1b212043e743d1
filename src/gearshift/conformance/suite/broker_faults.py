"""A broker killed or frozen for real, under load. Nothing may be lost."""

from __future__ import annotations

import time

from gearshift.conformance.behaviour import Area, Needs, behaviour, on_channel
from gearshift.conformance.kit import Kit
from gearshift.conformance.load import BEFORE, under_load
from gearshift.errors import ConnectionFailed


@behaviour(Area.FAULTS, capability="durability", needs=Needs.BROKER, deliveries=BEFORE)
def a_killed_broker_loses_nothing(kit: Kit) -> None:
    """SIGKILL while sending and consuming; after the restart both sides go on by themselves."""
    with under_load(kit):
        kit.fault("SIGKILL of the broker")
        kit.broker.kill()
        kit.broker.start()


@behaviour(Area.FAULTS, needs=Needs.BROKER, deliveries=BEFORE)
def a_frozen_broker_loses_nothing(kit: Kit) -> None:
    """SIGSTOP for longer than the heartbeat, then SIGCONT: both sides go on."""
    with under_load(kit):
        kit.fault("SIGSTOP of the broker")
        kit.broker.pause()
        try:
            time.sleep(2.5 * kit.faults.heartbeat_s)
        finally:
            kit.broker.resume()


@on_channel(Area.FAULTS, needs=Needs.BROKER)
def a_broker_that_is_down_is_one_clear_error(kit: Kit, channel: str) -> None:
    """Opening a producer raises ConnectionFailed at its deadline; with the broker it works."""
    kit.producer(channel).send()
    time.sleep(2.0)
    kit.fault("the broker is down")
    kit.broker.kill()
    try:
        with kit.refusal(ConnectionFailed, "error", "opening a producer without a broker"):
            kit.connect().producer(channel, timeout_s=2.0)
    finally:
        kit.broker.start()
    kit.producer(channel).send()
