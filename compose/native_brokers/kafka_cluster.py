"""Three Kafka nodes in one cluster, each both broker and controller."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import running_brokers
from native_brokers.cluster import NODES, Cluster
from native_brokers.errors import BrokerUnavailable
from native_brokers.kafka import Kafka, new_cluster_id
from native_brokers.ports import LOOPBACK
from native_brokers.probes import KafkaPartition, kafka_answers, kafka_partitions
from native_brokers.process import Process, close_connections

_FORMED_WITHIN_S = 60.0
_HOSTS = "hosts"

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

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        advertised: Sequence[str | None] = (None,) * NODES,
    ) -> None:
        """`settings` are server properties that go over the ones chosen here.

        `advertised` is, for each node, what `Kafka` takes under that name.
        """
        properties = {**_SETTINGS, **(settings or {})}
        cluster_id = new_cluster_id()
        super().__init__(
            [
                _Member(number, cluster_id, properties, address)
                for number, address in enumerate(advertised, 1)
            ]
        )

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
            node.members, node.voters = self.nodes, voters
        super().start()
        deadline = time.monotonic() + _FORMED_WITHIN_S
        while not all(kafka_answers(node.port, brokers=NODES) for node in self.nodes):
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"Kafka's nodes do not agree; {self.nodes[0].log_tail()}")
            time.sleep(0.1)

    def _isolate(self, node: _Member) -> None:
        others = [other for other in self.nodes if other is not node]
        node.reach([node])
        for other in others:
            other.reach(others)
        for other in set(others).intersection(running_brokers()):
            close_connections(other.pid, node.internal_ports)
            close_connections(node.pid, other.internal_ports)

    def _rejoin(self, node: _Member) -> None:
        for each in self.nodes:
            each.reach(self.nodes)

    def leader(self, name: str) -> _Member | None:
        """Return the node that leads the first partition of a topic, as a node that runs knows it.

        None if it knows none or does not answer.
        """
        leader = next((one.leader for one in self._partitions() if one[:2] == (name, 0)), -1)
        return None if leader == -1 else self.nodes[leader - 1]

    def move_leader(self, name: str) -> None:
        """See `Cluster`. The replica behind each leader of that topic takes over."""
        moves = []
        for one in self._partitions():
            if one.topic == name:
                leads = one.replicas.index(one.leader)  # not always the first
                replicas = [*one.replicas[leads + 1 :], *one.replicas[: leads + 1]]
                moves.append({"topic": name, "partition": one.number, "replicas": replicas})
        node = self._asked()
        plan = node.log.with_name("moves.json")
        plan.write_text(json.dumps({"version": 1, "partitions": moves}))
        file = ("--reassignment-json-file", str(plan))
        node.tool("reassign.ReassignPartitionsCommand", *file, "--execute")
        node.tool("LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions")

    def in_sync(self) -> bool:
        """See `Cluster`."""
        partitions = self._partitions()
        return all(len(one.in_sync) == NODES for one in partitions) and all(
            kafka_answers(node.port, brokers=NODES) for node in self.nodes
        )

    def _partitions(self) -> list[KafkaPartition]:
        return kafka_partitions(self._asked().port)


class _Member(Kafka):
    """The node of that number. `members` are all nodes, and `voters` they as controllers.

    It finds the others by names in a hosts file of its own, so that it can be cut off from them.
    """

    name: ClassVar[str] = "KafkaNode"

    def __init__(
        self, number: int, cluster_id: str, settings: Mapping[str, str], advertised: str | None
    ) -> None:
        super().__init__(settings=settings, advertised=advertised)
        self._number = number
        self._cluster_id = cluster_id
        self.members: Sequence[_Member] = ()
        self.voters = ""

    @property
    def host(self) -> str:
        """Its name for the others."""
        return f"node{self._number}"

    @property
    def voter(self) -> str:
        """The node itself as one of them."""
        return f"{self._number}@{self.host}:{self._ports[2]}"

    @property
    def internal_ports(self) -> tuple[int, ...]:
        """Those for the other nodes."""
        return self._ports[1:]

    def reach(self, nodes: Sequence[_Member]) -> None:
        """Have its connections to nodes succeed only if they are among these, from the next on."""
        self._write_hosts(self.log.parent, nodes)

    def _write_hosts(self, directory: Path, nodes: Sequence[_Member]) -> None:
        # A file of its own is all that a Java looks names up in, its own machine's too.
        names = ["localhost", socket.gethostname(), *(node.host for node in nodes)]
        (directory / _HOSTS).write_text(f"{LOOPBACK} {' '.join(names)}\n")

    def _launch(self, directory: Path) -> Process:
        if not (directory / _HOSTS).exists():
            self._write_hosts(directory, self.members)
        return super()._launch(directory)

    def _properties(self, directory: Path) -> dict[str, str]:
        properties = super()._properties(directory)
        del properties["controller.quorum.bootstrap.servers"]  # for a node alone
        advertised = properties["advertised.listeners"]
        for listener in ("INTERNAL", "CONTROLLER"):
            advertised = advertised.replace(f"{listener}://{LOOPBACK}", f"{listener}://{self.host}")
        return {
            **properties,
            "node.id": str(self._number),
            "controller.quorum.voters": self.voters,
            "advertised.listeners": advertised,
        }

    def _format_as(self) -> list[str]:
        return ["--cluster-id", self._cluster_id]

    def _leave_taken_ports(self) -> bool:
        return False  # the others know of these

    def _java_command(self, directory: Path, *options: str) -> list[str]:
        # Names are looked up for each connection, not once in half a minute.
        names = (f"-Djdk.net.hosts.file={directory / _HOSTS}", "-Dsun.net.inetaddr.ttl=0")
        return super()._java_command(directory, *names, *options)
