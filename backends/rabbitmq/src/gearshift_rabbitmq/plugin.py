"""The entry point: what this backend is, before any connection."""

from __future__ import annotations

from gearshift.capabilities import Capabilities, Durability, Known, Lease, Members, Order, Prefetch
from gearshift.driver import DRIVER_API, BackendPlugin
from gearshift.driver.plugin import hookimpl
from gearshift.message import Semantics
from gearshift_rabbitmq.backend import Backend
from gearshift_rabbitmq.raw_client import raw_client
from gearshift_rabbitmq.settings import SCHEMES, ChannelSettings, Settings
from gearshift_rabbitmq.wire.decoding import ONLY_HERE

__all__ = ["QUEUE", "STREAM", "gearshift_backend"]

QUEUE = Capabilities(
    redelivery=True,
    native_retry=True,
    native_delay=True,
    dead_letter=True,
    fan_out=True,
    replay=False,
    seek=False,
    purge=True,
    ephemeral_group=True,
    unroutable_detected=True,
    tombstone=False,
    depth=True,
    durable_group=True,
    order=Order.SINGLE_CONSUMER,
    redelivered=Known.HINT,  # also true for what was only prefetched by a dead consumer
    attempt=Known.HINT,  # retries exactly; of crashes, ten count as one
    prefetch=Prefetch.STRICT,
    durability=Durability.BROKER_RESTART,
    lease=Lease.FIXED,  # the server's consumer_timeout, 30 minutes by default
    members=Members.ANY,
    max_message_bytes=16 * 1024 * 1024,  # max_message_size of 4.x; Admin knows of 3.x
)

STREAM = Capabilities(
    redelivery=True,
    native_retry=False,  # a stream queue refuses nack, or takes it for an ack
    native_delay=False,
    dead_letter=True,
    fan_out=True,
    replay=True,
    seek=True,
    purge=False,  # a position belongs to its owner, and a stream is cut by retention only
    ephemeral_group=True,
    unroutable_detected=True,
    tombstone=False,
    depth=False,  # over AMQP a stream queue always has 0 messages
    durable_group=True,
    order=Order.KEY,
    redelivered=Known.NONE,
    attempt=Known.NONE,
    prefetch=Prefetch.SOFT,  # the broker's credit is for each partition
    durability=Durability.BROKER_RESTART,
    lease=Lease.HELD,
    members=Members.PARTITIONS,
    max_message_bytes=16 * 1024 * 1024,
)


@hookimpl
def gearshift_backend() -> BackendPlugin:
    """The plugin ``rabbitmq``."""
    return BackendPlugin(
        name="rabbitmq",
        driver_api=DRIVER_API,
        summary="RabbitMQ 3.10 or newer through pika: quorum queues, stream queues, confirms",
        settings=Settings,
        channel_settings=ChannelSettings,
        capabilities={Semantics.QUEUE: QUEUE, Semantics.STREAM: STREAM},
        default_semantics=Semantics.QUEUE,
        connect=Backend,
        url_schemes=dict.fromkeys(SCHEMES, lambda url: {"url": url}),
        only_here=ONLY_HERE,
        on_arrival=(
            "headers: sorted by name; those of one name keep their order",
            "key: a header to other programs if it is binary, empty or over 255 bytes",
            "timestamp: whole seconds to other programs",
            "refused: header names CC, BCC and x-death; key and headers over 120,000 bytes",
        ),
        raw_client=raw_client,
    )
