"""The entry point: what this backend is, before any connection."""

from __future__ import annotations

from gearshift.capabilities import Capabilities, Durability, Known, Lease, Members, Order, Prefetch
from gearshift.driver import DRIVER_API, BackendPlugin
from gearshift.driver.plugin import hookimpl
from gearshift.message import Semantics
from gearshift_kafka.backend import Backend
from gearshift_kafka.raw_client import raw_client
from gearshift_kafka.settings import ChannelSettings, Settings
from gearshift_kafka.wire import ONLY_HERE

__all__ = ["QUEUE", "STREAM", "gearshift_backend"]

STREAM = Capabilities(
    redelivery=True,
    native_retry=False,  # seeking back would block the whole partition
    native_delay=False,
    dead_letter=True,
    fan_out=True,
    replay=True,
    seek=True,
    purge=True,  # moves the group to the end; the log keeps what its retention keeps
    ephemeral_group=True,
    unroutable_detected=True,
    tombstone=True,
    depth=True,
    durable_group=True,
    order=Order.KEY,
    redelivered=Known.NONE,
    attempt=Known.NONE,
    prefetch=Prefetch.SOFT,
    durability=Durability.BROKER_RESTART,
    lease=Lease.HELD,  # polling goes on while handlers work
    members=Members.PARTITIONS,
    max_message_bytes=1_000_000,  # a default broker takes 1,048,588 with what we add
)

QUEUE = Capabilities(
    redelivery=True,
    native_retry=True,
    native_delay=True,  # in a topic of the group, see queue.delays
    dead_letter=True,
    fan_out=True,
    replay=False,
    seek=False,
    purge=False,  # this client cannot move a share group's start
    ephemeral_group=True,
    unroutable_detected=True,
    tombstone=True,
    depth=False,  # nor ask how far it is
    durable_group=True,
    order=Order.NONE,
    # The broker counts every time that it hands a message to a client, worked on or not.
    redelivered=Known.HINT,
    attempt=Known.HINT,
    prefetch=Prefetch.SOFT,  # a share group hands out whole batches of foreign producers
    durability=Durability.BROKER_RESTART,
    lease=Lease.FIXED,  # a lock, of 30 s by default, that this client cannot renew
    members=Members.ANY,
    max_message_bytes=1_000_000,
)


@hookimpl
def gearshift_backend() -> BackendPlugin:
    """The plugin ``kafka``."""
    return BackendPlugin(
        name="kafka",
        driver_api=DRIVER_API,
        summary="Kafka through librdkafka: streams on consumer groups, queues on share groups "
        "(experimental)",
        settings=Settings,
        channel_settings=ChannelSettings,
        capabilities={Semantics.STREAM: STREAM, Semantics.QUEUE: QUEUE},
        default_semantics=Semantics.STREAM,
        connect=Backend,
        url_schemes={"kafka": lambda url: {"bootstrap_servers": url[len("kafka://") :].split(",")}},
        only_here=ONLY_HERE,
        on_arrival=("headers: bytes to other programs, so numbers and true or false are text",),
        raw_client=raw_client,
    )
