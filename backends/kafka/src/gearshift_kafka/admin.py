"""Topics and groups: declaring, looking, emptying, deleting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from gearshift.capabilities import Capabilities
from gearshift.driver import ChannelSpec, GroupStatus
from gearshift.errors import NotSupported, TopologyConflict, UnknownChannel, UsageError
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift_kafka.asking import REQUEST_S, answer, answers
from gearshift_kafka.names import group_id, group_prefix, topic_name, topic_partitions
from gearshift_kafka.share.topology import Positions, ShareGroups

__all__ = ["KafkaAdmin", "group_exists"]

_TIMEOUT_S = 8.0

DEFAULT_PARTITIONS = 4


def group_exists(client: AdminClient, group: str) -> bool:
    """True if the group has a member or a position somewhere. Blocks; raises KafkaException."""
    return group in _all_groups(client)


class KafkaAdmin:
    """See AdminDriver."""

    def __init__(self, client: AdminClient, *, positions: Positions) -> None:
        self._client = client
        self._positions = positions
        self._share = ShareGroups(
            client,
            create=self._create_unless_there,
            ends=self._next_offsets,
            positions=positions,
        )

    def server(self) -> str:
        """Kafka tells no version to clients; the cluster's id and size are what there is."""
        cluster = self._client.list_topics(timeout=_TIMEOUT_S)
        count = len(cluster.brokers)
        return f"Apache Kafka cluster {cluster.cluster_id}, {count} broker{'s' * (count != 1)}"

    def capabilities(self, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        return declared

    def exists(self, channel: ChannelSpec) -> bool:
        return bool(topic_partitions(self._client, topic_name(channel), _TIMEOUT_S))

    def declare(self, channel: ChannelSpec) -> None:
        if channel.semantics is Semantics.QUEUE:
            self._share.require(channel)
        self._declare_topic(channel)
        for group in channel.groups:
            self.declare_group(channel, group)

    def declare_group(self, channel: ChannelSpec, group: str) -> None:
        """A group of a stream begins to exist with its first member."""
        if channel.semantics is Semantics.QUEUE:
            self._share.declare(channel, group)

    def _declare_topic(self, channel: ChannelSpec) -> None:
        topic = topic_name(channel)
        there = topic_partitions(self._client, topic, _TIMEOUT_S)
        if there:
            self._compare(channel, topic, len(there))
        elif channel.native.topic is not None:
            raise UnknownChannel(
                f"topic {topic!r}, which native.kafka adopts, does not exist",
                hint="create it, or drop native.kafka.topic",
            )
        else:
            self._create(channel, topic)

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        if channel.semantics is Semantics.QUEUE:  # of share groups, this client can ask nothing
            return [GroupStatus(group=group) for group in self._share.known(channel)]
        topic = topic_name(channel)
        first, end = self._ends(topic)
        statuses = []
        for group in self._group_names(channel, topic):
            name = group_id(channel, group)
            committed = self._committed(name).get(topic, {})
            consumers = self._members(name)
            statuses.append(
                GroupStatus(group=group, lag=_lag(committed, first, end), consumers=consumers)
            )
        return statuses

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        """Move the group to the end of the topic. Only while it has no member: those hold its
        positions, and would put them back. Raises UsageError."""
        if channel.semantics is Semantics.QUEUE:
            raise NotSupported("a share group's messages cannot be thrown away by this client")
        topic, name = topic_name(channel), group_id(channel, group)
        members = self._members(name)
        if members:
            raise UsageError(
                f"group {group!r} has {members} consumers, which hold its positions",
                hint="close them first, or have them seek to the end",
            )
        first, end = self._ends(topic)
        lag = _lag(self._committed(name).get(topic, {}), first, end)
        places = [TopicPartition(topic, partition, offset) for partition, offset in end.items()]
        request = ConsumerGroupTopicPartitions(name, places)
        changed = answer(
            lambda: self._client.alter_consumer_group_offsets([request], request_timeout=REQUEST_S)[
                name
            ]
        )
        for place in changed.topic_partitions:
            if place.error is not None:
                raise KafkaException(place.error)
        return lag

    def delete(self, channel: ChannelSpec) -> None:
        topic = topic_name(channel)
        if channel.native.topic is not None:
            raise NotSupported(f"topic {topic!r} was adopted and is not ours to delete")
        is_queue = channel.semantics is Semantics.QUEUE
        topics, groups = (self._queue_parts if is_queue else self._stream_parts)(channel, topic)
        for name in (topic, *topics):
            self._delete_topic(name)
        for group in groups:
            self._delete_group(group)
        self._wait_until(topic, is_there=False)

    def _delete_topic(self, topic: str) -> None:
        answer(lambda: self._client.delete_topics([topic], request_timeout=REQUEST_S)[topic])

    def _delete_group(self, group: str) -> None:
        # One that is not there, or still has members, ends by itself.
        with contextlib.suppress(KafkaException):
            answer(
                lambda: self._client.delete_consumer_groups([group], request_timeout=REQUEST_S)[
                    group
                ]
            )

    def _stream_parts(self, channel: ChannelSpec, topic: str) -> tuple[list[str], list[str]]:
        """Further topics, and the groups, that go with a stream: no topics."""
        # Only groups that read nothing else: another channel's ids may begin alike.
        return [], [
            name
            for group in self._group_names(channel, topic)
            if (name := group_id(channel, group)) != channel.native.group
            and self._committed(name).keys() <= {topic}
        ]

    def _queue_parts(self, channel: ChannelSpec, _topic: str) -> tuple[list[str], list[str]]:
        """Further topics, and the groups, that go with a queue."""
        topics: list[str] = []
        groups: list[str] = []
        for group in self._share.known(channel):
            helpers = self._share.forget(channel, group)
            topics += [t for t in helpers if topic_partitions(self._client, t, _TIMEOUT_S)]
            groups += [group_id(channel, group), *helpers]
        return topics, [name for name in groups if name != channel.native.group]

    def close(self) -> None:
        """The client ends with this object; there is nothing to wait for."""

    # ── topics ──

    def _compare(self, channel: ChannelSpec, topic: str, there: int) -> None:
        if channel.partitions is not None and channel.partitions != there:
            raise TopologyConflict(
                f"topic {topic!r} has {there} partitions, the channel says {channel.partitions}",
                hint=f"set partitions = {there}; adding some would break the order of keys",
            )
        if channel.retention_s is None:
            return
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = answer(
            lambda: self._client.describe_configs([resource], request_timeout=REQUEST_S)[resource]
        )
        wanted, has = _retention_ms(channel.retention_s), entries["retention.ms"].value
        if has != wanted:
            raise TopologyConflict(
                f"topic {topic!r} has retention.ms {has}, the channel says {wanted}",
                hint="change the topic, or retention_s of the channel",
            )

    def _create(self, channel: ChannelSpec, topic: str) -> None:
        config = dict(channel.native.config)
        if channel.retention_s is not None:
            config["retention.ms"] = _retention_ms(channel.retention_s)
        # The members of a share group need no partition each, and where there are several the
        # broker offers each member only some: with one, everybody gets whatever comes (measured).
        is_queue = channel.semantics is Semantics.QUEUE
        default = channel.native.partitions if is_queue else DEFAULT_PARTITIONS
        new = NewTopic(
            topic,
            num_partitions=channel.partitions or default,
            replication_factor=channel.native.replication_factor,
            config=config,
        )
        if not self._create_topic(new):  # somebody else was quicker
            there = topic_partitions(self._client, topic, _TIMEOUT_S)
            self._compare(channel, topic, len(there))

    def _create_unless_there(self, new: NewTopic) -> None:
        if not topic_partitions(self._client, new.topic, _TIMEOUT_S):
            self._create_topic(new)

    def _create_topic(self, new: NewTopic) -> bool:
        """Create a topic and wait until it can be used; False if it was there already."""
        try:
            answer(lambda: self._client.create_topics([new], request_timeout=REQUEST_S)[new.topic])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            self._wait_until(new.topic, is_there=True)
            return False
        self._wait_until(new.topic, is_there=True)
        return True

    def _wait_until(self, topic: str, *, is_there: bool) -> None:
        """Metadata spreads a moment after a change; a producer would meet 'unknown topic'."""
        deadline = time.monotonic() + _TIMEOUT_S
        while self._is_ready(topic) != is_there:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            time.sleep(0.05)

    def _is_ready(self, topic: str) -> bool:
        """True if every partition has a leader."""
        found = self._client.list_topics(topic, timeout=_TIMEOUT_S).topics.get(topic)
        if found is None or found.error is not None or not found.partitions:
            return False
        return all(partition.leader >= 0 for partition in found.partitions.values())

    def _ends(self, topic: str) -> tuple[dict[int, int], dict[int, int]]:
        """First and next offset of every partition."""
        partitions = topic_partitions(self._client, topic, _TIMEOUT_S)
        first = self._list_offsets(topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        return first, self._next_offsets(topic)

    def _next_offsets(self, topic: str) -> dict[int, int]:
        partitions = topic_partitions(self._client, topic, _TIMEOUT_S)
        return self._list_offsets(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def _list_offsets(self, topic: str, partitions: list[int], spec: Any) -> dict[int, int]:
        if not partitions:
            return {}
        wanted = {TopicPartition(topic, partition): spec for partition in partitions}
        found = answers(lambda: self._client.list_offsets(wanted, request_timeout=REQUEST_S))
        return {place.partition: each.offset for place, each in found.items()}

    # ── groups ──

    def _group_names(self, channel: ChannelSpec, topic: str) -> list[str]:
        """Declared groups, and those the broker knows to read this channel's topic."""
        prefix = group_prefix(channel)
        names = list(channel.groups)
        for name in _all_groups(self._client):
            if name.startswith(prefix) and self._reads(name, topic):
                names.append(name.removeprefix(prefix))
        if channel.native.group is not None and not channel.groups:
            names.append(DEFAULT_GROUP)
        return list(dict.fromkeys(names))

    def _reads(self, name: str, topic: str) -> bool:
        # Positions tell, but for a group that has just been joined; then its id has to do.
        committed = self._committed(name)
        return topic in committed or not committed

    def _committed(self, group: str) -> dict[str, dict[int, int]]:
        """The group's positions, by topic and partition; empty if there is no such group."""
        topics = self._client.list_topics(timeout=_TIMEOUT_S).topics
        places = [TopicPartition(name, p) for name in topics for p in topics[name].partitions]
        committed: dict[str, dict[int, int]] = {}
        for place in self._positions(group, places):
            if place.error is not None:
                raise KafkaException(place.error)
            if place.offset >= 0:
                committed.setdefault(place.topic, {})[place.partition] = place.offset
        return committed

    def _members(self, group: str) -> int | None:
        try:
            found = answer(
                lambda: self._client.describe_consumer_groups([group], request_timeout=REQUEST_S)[
                    group
                ]
            )
        except KafkaException as error:
            missing = error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
            return 0 if missing else None
        return len(found.members)


def _all_groups(client: AdminClient) -> list[str]:
    known = answer(lambda: client.list_consumer_groups(request_timeout=REQUEST_S))
    return sorted(group.group_id for group in known.valid or ())


def _lag(committed: dict[int, int], first: dict[int, int], end: dict[int, int]) -> int | None:
    """What lies behind a group's positions; None for one that has none, and may start anywhere.

    A partition without position was added later, and is read from its beginning.
    """
    if not committed:
        return None
    return sum(end[p] - max(first[p], committed.get(p, first[p])) for p in end)


def _retention_ms(retention_s: float) -> str:
    return str(int(retention_s * 1000))
