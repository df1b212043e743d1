"""The nodes of a cluster, in the order in which connections try them.

The order is drawn once for each bus. Many services are given the nodes in one order, and all would
be connected to the first. The connections of one bus go to the same node: what one has declared,
another node may not know of yet. A node that has just failed comes last.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Address", "Nodes"]

#: How long a node that failed comes after the others. Seconds.
_LAST_FOR_S = 30.0


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a node. ``host`` is its name in the settings, which TLS asks for."""

    host: str
    ip: str
    port: int
    #: 0 for the family (IPv6, IPv4) that the system prefers for this name, then 1.
    family: int = 0

    def __str__(self) -> str:
        return f"{self.host} ({self.ip}), port {self.port}"


class Nodes:
    """What the connections of one bus know of the cluster's nodes. Any thread."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._lots: dict[Address, float] = {}
        self._failed_at: dict[Address, float] = {}

    def in_order(self, addresses: Iterable[Address]) -> list[Address]:
        """As it was drawn, but what has failed lately last, and of that the latest."""
        recently = self._clock() - _LAST_FOR_S

        def place(one: Address) -> tuple[float, int, float]:
            failed_at = max(recently, self._failed_at.get(one, recently))
            return failed_at, one.family, self._lots.setdefault(one, self._draw())

        return sorted(addresses, key=place)

    def failed(self, address: Address) -> None:
        """Try the others before this one, for a while."""
        self._failed_at[address] = self._clock()
