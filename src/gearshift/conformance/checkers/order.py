"""Checkers of order: per key, and along the offsets of a log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from gearshift.capabilities import Order
from gearshift.conformance.history import Kind
from gearshift.conformance.view import View
from gearshift.message import Semantics

__all__ = ["first_delivery_order", "poll_order"]


def first_delivery_order(view: View) -> Iterator[str]:
    """First deliveries of one producer's messages of one key came in another order than sent."""
    order = view.capabilities.order
    if order is Order.NONE or (order is Order.SINGLE_CONSUMER and view.shared):
        return
    last: dict[tuple[str, str | None], int] = {}
    seen: set[str] = set()
    for event in view.deliveries:
        sent = view.published.get(event.id or "")
        if sent is None or sent.sequence is None or sent.id in seen:
            continue
        seen.add(sent.id or "")
        source = (sent.who, sent.key)
        if sent.key is None and view.semantics is Semantics.STREAM:
            continue  # without a key a log has no order to keep
        if sent.sequence < last.get(source, -1):
            yield f"{sent} came after number {last[source]}"
        last[source] = max(sent.sequence, last.get(source, -1))


def poll_order(view: View) -> Iterator[str]:
    """On a stream: one consumer's offsets went backwards, or left out a stored message that no
    other consumer had been given before: partitions may go away and come back."""
    if view.semantics is not Semantics.STREAM or view.retries:
        return
    stored: dict[int, list[int]] = defaultdict(list)
    for event in view.stored.values():
        if event.position is not None:
            stored[event.position[0]].append(event.position[1])
    reached: dict[tuple[str, int], int] = {}
    takers: dict[tuple[int, int], set[str]] = defaultdict(set)
    seen: set[str | None] = set()
    for event in view.events:
        if event.kind in (Kind.SEEK, Kind.OPEN, Kind.CLOSE, Kind.FAULT):
            reached.clear()
            takers.clear()
        if event.kind is not Kind.DELIVER or event.position is None:
            continue
        partition, offset = event.position
        before = reached.get((event.who, partition))
        reached[event.who, partition] = offset
        takers[partition, offset].add(event.who)
        again = event.id in seen
        seen.add(event.id)
        if before is None or (view.faulted and again):
            continue  # a lost connection rightly begins again at the committed position
        if offset <= before:
            yield f"{event.who} got offset {offset} of partition {partition} after {before}"
        skipped = [
            other
            for other in stored[partition]
            if before < other < offset and not takers[partition, other] - {event.who}
        ]
        if skipped:
            yield f"{event.who} went from offset {before} to {offset} past {skipped[:5]}"
