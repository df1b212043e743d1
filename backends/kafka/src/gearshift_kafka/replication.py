"""Copies of a topic: how many a new one gets, and what the loss of a node would do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic, ResourceType, TopicMetadata  # type: ignore[attr-defined]

from gearshift.driver import Condition
from gearshift_kafka.admin_client import ask, number
from gearshift_kafka.queue.limits import broker_number

__all__ = ["COPIES", "Copies", "conditions", "copies_of", "create"]

_TIMEOUT_S = 8.0
_LEAST = "min.insync.replicas"

#: Three copies of which two confirm: no message is lost with a node, and nothing stops.
COPIES = 3
_CONFIRM = 2

_UNSET = -1

#: Kafka's own, for positions of groups and the state of share groups.
_INTERNAL = ("__consumer_offsets", "__share_group_state")


def create(client: AdminClient, new: NewTopic, copies: int) -> int:
    """Create a topic, with ``copies`` where nothing else is chosen, or one for each broker if there
    are fewer; of three two have to confirm. Returns how many copies it has. Blocks; raises
    KafkaException."""
    if new.replication_factor != _UNSET:
        return _create(client, new, new.replication_factor)
    try:  # also while one of three brokers is down
        return _create(client, new, copies)
    except KafkaException as error:
        brokers = len(client.list_topics(timeout=_TIMEOUT_S).brokers)
        too_few = error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR
        if not too_few or brokers >= copies:
            raise
        return _create(client, new, brokers)


def _create(client: AdminClient, new: NewTopic, copies: int) -> int:
    config = dict(new.config or {})
    if copies >= COPIES and _LEAST not in config and broker_number(client, _LEAST, 1) < _CONFIRM:
        config[_LEAST] = str(_CONFIRM)
    wanted = NewTopic(new.topic, new.num_partitions, copies, config=config)
    ask(client.create_topics, wanted, new.topic)
    return copies


@dataclass(frozen=True, slots=True)
class Copies:
    """Of the partition of a topic that has the fewest. ``confirm`` is ``min.insync.replicas``, None
    if we may not know; ``brokers`` are those that run, ``away`` those of its nodes that do not."""

    topic: str
    brokers: int
    copies: int
    in_sync: int
    confirm: int | None
    away: tuple[int, ...]
    leaderless: int

    def __str__(self) -> str:
        confirm = "unknown" if self.confirm is None else self.confirm
        text = (
            f"topic {self.topic!r}: {self.copies} {'copy' if self.copies == 1 else 'copies'}, "
            f"{self.in_sync} in sync, {_LEAST} {confirm}"
        )
        if self.away:
            text += f", not running: node {', '.join(map(str, self.away))}"
        return text

    @property
    def after_a_loss(self) -> str:
        """The effect of the loss of one more node, in a sentence."""
        if self.leaderless:
            return "it has no leader now: nothing is sent or received there"
        if self.in_sync < 2:
            return "the loss of its node stops sending and receiving, and of that disk loses all"
        if self.confirm is None:
            return f"the loss of one node stops sending if {_LEAST} is {self.in_sync} or more"
        if self.in_sync - 1 < self.confirm:
            return "the loss of one node stops sending until it is back; receiving goes on"
        return "it goes on without any one node, after some seconds for another leader"

    @property
    def is_weak(self) -> bool:
        """True if one node that is down stops it though the cluster is large enough."""
        if self.copies == 1:
            return self.brokers >= COPIES
        return self.confirm is not None and self.confirm >= self.copies

    @property
    def problem(self) -> str | None:
        """Advice, or None if all is well; a cluster of one broker is not a problem."""
        if self.leaderless or self.away or self.in_sync < self.copies:
            return "start the nodes that do not run, and see the brokers' logs"
        if not self.is_weak:
            return None
        if self.copies == 1:
            return "give it three copies with kafka-reassign-partitions.sh"
        return f"set its {_LEAST} to {self.copies - 1}"


def copies_of(client: AdminClient, topic: str) -> Copies | None:
    """Those of ``topic``, which exists; None if it has just gone. Blocks; raises KafkaException."""
    metadata = client.list_topics(topic, timeout=_TIMEOUT_S)
    found = metadata.topics.get(topic)
    if found is None or not found.partitions:
        return None
    return _copies(client, found, metadata.brokers.keys())


def conditions(client: AdminClient, topics: Iterable[tuple[str, str]]) -> Iterator[Condition]:
    """State of the cluster, of its own topics, and of ``topics``, each with its channel."""
    metadata = client.list_topics(timeout=_TIMEOUT_S)
    running = metadata.brokers.keys()
    known = {
        node
        for topic in metadata.topics.values()
        for partition in topic.partitions.values()
        for node in partition.replicas
    }
    away = sorted(known - running)
    text = f"cluster: {len(running)} brokers run" if len(running) != 1 else "cluster: 1 broker runs"
    if away:
        text += f"; not running: node {', '.join(map(str, away))}"
    yield Condition("cluster", text, "start them, and see their logs" if away else None)
    wanted = [(name, "cluster") for name in _INTERNAL] + [(name, of) for of, name in topics]
    for name, subject in wanted:
        found = metadata.topics.get(name)
        if found is not None and found.partitions:
            copies = _copies(client, found, running)
            yield Condition(subject, f"{copies}; {copies.after_a_loss}", copies.problem)


def _copies(client: AdminClient, topic: TopicMetadata, running: Iterable[int]) -> Copies:
    running = set(running)
    partitions = topic.partitions.values()
    return Copies(
        topic=str(topic.topic),
        brokers=len(running),
        copies=min(len(partition.replicas) for partition in partitions),
        in_sync=min(len(partition.isrs) for partition in partitions),
        confirm=number(client, ResourceType.TOPIC, str(topic.topic), _LEAST),
        away=tuple(sorted({n for partition in partitions for n in partition.replicas} - running)),
        leaderless=sum(partition.leader < 0 for partition in partitions),
    )
