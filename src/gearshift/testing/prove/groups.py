"""What a worker would go by for a handler, on the profile that it is proved for."""

from __future__ import annotations

from gearshift.bus import Bus
from gearshift.bus.policies import consumer_policy
from gearshift.driver import ConsumerSpec
from gearshift.message import DEFAULT_GROUP
from gearshift.misfortunes import Situation
from gearshift.testing.prove.simulated import Group
from gearshift.worker.app import Handler

__all__ = ["group_of"]


def group_of(bus: Bus, handler: Handler, processes: int) -> Group:
    """What a worker would go by for ``handler``. Raises NotSupported for what it requires."""
    channel = handler.channel
    topology = bus._topology
    spec = topology.spec(channel)
    capabilities = topology.capabilities(spec)
    group = handler.group or DEFAULT_GROUP
    consumer = ConsumerSpec(channel=spec, group=group, member="proved", prefetch=1)
    chosen = topology.settings(channel)
    return Group(
        handler=handler,
        policy=consumer_policy(
            bus.backend, consumer, chosen, capabilities, None, handler.call.value_type
        ),
        situation=Situation(
            capabilities=capabilities,
            semantics=spec.semantics,
            concurrency=handler.concurrency,
            processes=processes,
        ),
        dead_letter=chosen.dead_letter_name(channel),
    )
