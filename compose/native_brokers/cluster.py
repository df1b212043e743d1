"""Three nodes of one kind that hold one another's data."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from native_brokers.broker import Broker, Startable, running_brokers
from native_brokers.errors import BrokerUnavailable

NODES = 3
_IN_SYNC_WITHIN_S = 120.0
_POLL_S = 0.1

AnyBroker = TypeVar("AnyBroker", bound=Broker)


class Cluster(Startable, Generic[AnyBroker]):
    """A cluster of this machine, made for tests that break it. Use from one thread at a time.

    Each of `nodes` can be killed, paused, resumed and started again as a broker of its own; it
    keeps its ports and its place in the cluster until `stop`.
    """

    def __init__(self, nodes: Sequence[AnyBroker]) -> None:
        """Take nodes that have never run."""
        self.nodes = tuple(nodes)
        self._isolated: set[AnyBroker] = set()

    def start(self) -> None:
        """Start the nodes that do not run; blocks until each answers. Raises as `Broker.start`."""
        self._all(Broker.start)  # at once, for they wait for one another

    def stop(self) -> None:
        """Shut all nodes down and forget their data; blocks. Calling it again does nothing."""
        self._all(Broker.stop)

    def kill(self) -> None:
        """SIGKILL all nodes at once; blocks until they are gone. Data stay."""
        self._all(Broker.kill)

    def pause(self) -> None:
        """SIGSTOP all nodes, until `resume`."""
        self._all(Broker.pause)

    def resume(self) -> None:
        """SIGCONT them."""
        self._all(Broker.resume)

    def isolate(self, node: AnyBroker) -> None:
        """Cut a node that runs off from the others, but not from clients, until `rejoin`.

        The connections between them are closed, and no new ones can be made.
        """
        self._isolated.add(node)
        self._isolate(node)

    def rejoin(self) -> None:
        """Let nodes that were cut off reach the others again; does not wait for it."""
        for node in self._isolated:
            self._rejoin(node)
        self._isolated.clear()

    @abstractmethod
    def _isolate(self, node: AnyBroker) -> None:
        """Cut it off."""

    @abstractmethod
    def _rejoin(self, node: AnyBroker) -> None:
        """Undo it."""

    @abstractmethod
    def leader(self, name: str) -> AnyBroker | None:
        """Return the node that leads what has that name, as a node that runs knows it."""

    @abstractmethod
    def move_leader(self, name: str) -> None:
        """Have another node lead what has that name, as an operator does it; blocks for seconds.

        All nodes must run. Raises `BrokerUnavailable` if that fails.
        """

    @abstractmethod
    def in_sync(self) -> bool:
        """Tell whether every node has all that it should, so that any may go; blocks briefly."""

    def wait_in_sync(self) -> None:
        """Block until `in_sync`. Raises `BrokerUnavailable` after two minutes."""
        deadline = time.monotonic() + _IN_SYNC_WITHIN_S
        while not self.in_sync():
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"not in sync; {self.nodes[0].log_tail()}")
            time.sleep(_POLL_S)

    def restart_in_turn(self) -> None:
        """Shut each node down and start it again while the others run; blocks.

        Waits for `in_sync` before each and at the end. Raises as that and as `Broker.start`.
        """
        for node in self.nodes:
            self.wait_in_sync()
            node.shut_down()
            node.start()
        self.wait_in_sync()

    def _asked(self) -> AnyBroker:
        """Return the first node that runs and is not cut off, or the first of all."""
        able = set(running_brokers()) - self._isolated
        return next((node for node in self.nodes if node in able), self.nodes[0])

    def _all(self, do: Callable[[AnyBroker], None]) -> None:
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(do, self.nodes))
