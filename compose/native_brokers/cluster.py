"""Three nodes of one kind that hold one another's data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from native_brokers.broker import Broker, Startable

NODES = 3

AnyBroker = TypeVar("AnyBroker", bound=Broker)


class Cluster(Startable, Generic[AnyBroker]):
    """A cluster of this machine, made for tests that break it. Use from one thread at a time.

    Each of `nodes` can be killed, paused, resumed and started again as a broker of its own; it
    keeps its ports and its place in the cluster until `stop`.
    """

    def __init__(self, nodes: Sequence[AnyBroker]) -> None:
        """Take nodes that have never run."""
        self.nodes = tuple(nodes)

    def start(self) -> None:
        """Start the nodes that do not run; blocks until each answers. Raises as `Broker.start`."""
        self._all(Broker.start)  # at once, for they wait for one another

    def stop(self) -> None:
        """Shut all nodes down and forget their data; blocks. Calling it again does nothing."""
        self._all(Broker.stop)

    def _all(self, do: Callable[[AnyBroker], None]) -> None:
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(do, self.nodes))
