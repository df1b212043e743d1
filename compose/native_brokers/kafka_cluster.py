"""Three Kafka nodes in one cluster, each both broker and controller."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from native_brokers.cluster import NODES, Cluster
from native_brokers.errors import BrokerUnavailable
from native_brokers.kafka import Kafka, new_cluster_id
from native_brokers.ports import LOOPBACK
from native_brokers.probes import kafka_answers

_FORMED_WITHIN_S = 60.0

# Each record on every node, and confirmed by two of them.
_SETTINGS = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


class KafkaCluster(Cluster["_Member"]):
    """See `Cluster`. A record is on every node and confirmed by two of them."""

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are server properties that go over the ones chosen here."""
        properties = {**_SETTINGS, **(settings or {})}
        cluster_id = new_cluster_id()
        super().__init__([_Member(n, cluster_id, properties) for n in range(1, NODES + 1)])

    @property
    def url(self) -> str:
        """The bootstrap addresses of all nodes, with commas."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> None:
        """See `Cluster`. Returns when every node knows of all of them, so that topics can be made.

        Raises `BrokerUnavailable` too if that takes over a minute.
        """
        voters = ",".join(node.voter for node in self.nodes)
        for node in self.nodes:
            node.voters = voters
        super().start()
        deadline = time.monotonic() + _FORMED_WITHIN_S
        while not all(kafka_answers(node.port, brokers=NODES) for node in self.nodes):
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"Kafka's nodes do not agree; {self.nodes[0].log_tail()}")
            time.sleep(0.1)


class _Member(Kafka):
    """The node of that number. `voters` are all nodes as controllers."""

    name: ClassVar[str] = "KafkaNode"

    def __init__(self, number: int, cluster_id: str, settings: Mapping[str, str]) -> None:
        super().__init__(settings=settings)
        self._number = number
        self._cluster_id = cluster_id
        self.voters = ""

    @property
    def voter(self) -> str:
        """The node itself as one of them."""
        return f"{self._number}@{LOOPBACK}:{self._ports[2]}"

    def _properties(self, directory: Path) -> dict[str, str]:
        properties = super()._properties(directory)
        del properties["controller.quorum.bootstrap.servers"]  # for a node alone
        return {
            **properties,
            "node.id": str(self._number),
            "controller.quorum.voters": self.voters,
        }

    def _format_as(self) -> list[str]:
        return ["--cluster-id", self._cluster_id]

    def _leave_taken_ports(self) -> bool:
        return False  # the others know of these
