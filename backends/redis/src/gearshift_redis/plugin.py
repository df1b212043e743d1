"""The entry point: what this backend is, before any connection."""

from __future__ import annotations

from gearshift.capabilities import Capabilities, Durability, Known, Lease, Members, Order, Prefetch
from gearshift.driver import DRIVER_API, BackendPlugin
from gearshift.driver.plugin import hookimpl
from gearshift.message import Semantics
from gearshift_redis.backend import Backend
from gearshift_redis.raw_client import raw_client
from gearshift_redis.settings import SCHEMES, ChannelSettings, Settings

__all__ = ["QUEUE", "gearshift_backend"]

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
    redelivered=Known.HINT,  # also true for what only lay in the buffer of a consumer that closed
    attempt=Known.HINT,  # retries exactly; of what came back without a word, ten count as one
    prefetch=Prefetch.STRICT,
    durability=Durability.BROKER_RESTART,  # a server that forgets is refused, see ``persistence``
    lease=Lease.HELD,
    members=Members.ANY,
    max_message_bytes=16 * 1024 * 1024,  # a larger one would hold up the server's one thread
)


@hookimpl
def gearshift_backend() -> BackendPlugin:
    """The plugin ``redis``."""
    return BackendPlugin(
        name="redis",
        driver_api=DRIVER_API,
        summary="Redis 7.0 or newer through redis-py: a stream per group, atomic scripts",
        settings=Settings,
        channel_settings=ChannelSettings,
        capabilities={Semantics.QUEUE: QUEUE},
        default_semantics=Semantics.QUEUE,
        connect=Backend,
        url_schemes=dict.fromkeys(SCHEMES, lambda url: {"url": url}),
        on_arrival=("headers: one field of MessagePack to other programs",),
        raw_client=raw_client,
    )
