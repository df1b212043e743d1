"""The seeded workload: the same orders, keys and efforts for every column."""

from __future__ import annotations

import hashlib
import random

import msgspec

__all__ = ["Order", "make", "sha256"]

_CENTS = (100, 99_999)

#: A message's share of the scenario's handling time: uneven, or nothing would ever be overtaken.
_EFFORT = (0.2, 1.8)


class Order(msgspec.Struct, frozen=True):
    """One message. ``order_id`` is its place in the workload; ``customer`` is its key."""

    task: str
    order_id: int
    customer: str
    cents: int
    effort: float


def make(seed: int, messages: int, keys: int) -> tuple[Order, ...]:
    """``messages`` orders of ``keys`` customers; the same for the same arguments everywhere."""
    source = random.Random(seed)
    return tuple(
        Order(
            task="process_order",
            order_id=number,
            customer=f"customer-{source.randrange(keys)}",
            cents=source.randint(*_CENTS),
            effort=round(source.uniform(*_EFFORT), 3),
        )
        for number in range(messages)
    )


def sha256(orders: tuple[Order, ...]) -> str:
    """A name for exactly this workload."""
    return hashlib.sha256(msgspec.json.encode(orders)).hexdigest()
