"""What both embedded backends declare. They differ only in what they survive."""

from __future__ import annotations

from collections.abc import Mapping

from gearshift.capabilities import Capabilities, Durability, Known, Lease, Members, Order, Prefetch
from gearshift.message import Semantics

__all__ = ["DEFAULT_PARTITIONS", "MAX_MESSAGE_BYTES", "declared"]

#: Partitions of a stream that names no number.
DEFAULT_PARTITIONS = 4

MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def declared(durability: Durability) -> Mapping[Semantics, Capabilities]:
    """Capabilities per semantics of a backend whose messages outlive what ``durability`` says."""
    return {Semantics.QUEUE: _queue(durability), Semantics.STREAM: _stream(durability)}


def _queue(durability: Durability) -> Capabilities:
    return Capabilities(
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
        order=Order.KEY,
        redelivered=Known.EXACT,
        attempt=Known.EXACT,
        prefetch=Prefetch.STRICT,
        durability=durability,
        lease=Lease.HELD,
        members=Members.ANY,
        max_message_bytes=MAX_MESSAGE_BYTES,
    )


def _stream(durability: Durability) -> Capabilities:
    return Capabilities(
        redelivery=True,
        native_retry=False,  # a log has one position per partition; core holds what is retried
        native_delay=False,
        dead_letter=True,
        fan_out=True,
        replay=True,
        seek=True,
        purge=True,
        ephemeral_group=True,
        unroutable_detected=True,
        tombstone=True,
        depth=True,
        durable_group=True,
        order=Order.KEY,
        redelivered=Known.NONE,  # nothing is written when a log is read
        attempt=Known.NONE,
        prefetch=Prefetch.STRICT,
        durability=durability,
        lease=Lease.HELD,
        members=Members.PARTITIONS,
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
