"""Capabilities and refusals of both embedded backends, which differ in durability only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gearshift.capabilities import Capabilities, Durability, Known, Lease, Members, Order, Prefetch
from gearshift.driver import ChannelSpec
from gearshift.errors import TopologyConflict, UnknownChannel, Unroutable
from gearshift.message import Semantics

__all__ = [
    "DEFAULT_PARTITIONS",
    "declared",
    "missing",
    "require_partitions",
    "require_same",
    "unroutable",
]

#: Partitions of a stream that names no number.
DEFAULT_PARTITIONS = 4

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def declared(durability: Durability) -> Mapping[Semantics, Capabilities]:
    """Capabilities per semantics of a backend whose messages outlive what ``durability`` says."""
    queue = Capabilities(
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
        max_message_bytes=_MAX_MESSAGE_BYTES,
    )
    stream = replace(
        queue,
        native_retry=False,  # a log has one position per partition; core holds what is retried
        native_delay=False,
        replay=True,
        seek=True,
        tombstone=True,
        redelivered=Known.NONE,  # nothing is written when a log is read
        attempt=Known.NONE,
        members=Members.PARTITIONS,
    )
    return {Semantics.QUEUE: queue, Semantics.STREAM: stream}


def require_same(spec: ChannelSpec, semantics: Semantics) -> None:
    """Raise TopologyConflict if the channel that is there has other semantics."""
    if semantics is not spec.semantics:
        raise TopologyConflict(f"channel {spec.name!r} is a {semantics}, not a {spec.semantics}")


def require_partitions(spec: ChannelSpec, there: int) -> None:
    """Raise TopologyConflict if ``spec`` asks for another number than a stream has."""
    if spec.partitions not in (None, there):
        raise TopologyConflict(
            f"channel {spec.name!r} has {there} partitions, not {spec.partitions}",
            hint=f"set partitions = {there}, or delete the channel first",
        )


def missing(spec: ChannelSpec) -> UnknownChannel:
    """The error for a channel that is not there."""
    return UnknownChannel(f"channel {spec.name!r} does not exist", hint="declare it first")


def unroutable() -> Unroutable:
    """The error for a queue that nobody receives from."""
    return Unroutable(
        "the channel has no group that would receive it",
        hint="name groups in the channel's settings, or open a consumer first",
    )
