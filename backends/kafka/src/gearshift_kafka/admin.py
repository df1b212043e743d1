"""Topics and groups: declaring, looking, deleting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from gearshift.driver import ChannelSpec, GroupStatus
from gearshift.errors import NotSupported, TopologyConflict, UnknownChannel
from gearshift_kafka.names import group_id, topic_name

__all__ = ["KafkaAdmin", "topic_partitions"]

_TIMEOUT_S = 8.0

DEFAULT_PARTITIONS = 4


def topic_partitions(client: Any, topic: str, timeout_s: float) -> list[int]:
    """The topic's partitions; empty if it does not exist. Blocks; raises KafkaException."""
    found = client.list_topics(topic, timeout=timeout_s).topics.get(topic)
    if found is None or (found.error and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        return []
    if found.error is not None:
        raise KafkaException(found.error)
    return sorted(found.partitions)


class KafkaAdmin:
    """See AdminDriver."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client

    def server(self) -> str:
        """Kafka tells no version to clients; the cluster's id and size are what there is."""
        cluster = self._client.list_topics(timeout=_TIMEOUT_S)
        count = len(cluster.brokers)
        return f"Apache Kafka cluster {cluster.cluster_id}, {count} broker{'s' * (count != 1)}"

    def exists(self, channel: ChannelSpec) -> bool:
        return bool(topic_partitions(self._client, topic_name(channel), _TIMEOUT_S))

    def declare(self, channel: ChannelSpec) -> None:
        topic = topic_name(channel)
        there = topic_partitions(self._client, topic, _TIMEOUT_S)
        if there:
            self._compare(channel, len(there))
        elif channel.native.topic is not None:
            raise UnknownChannel(
                f"topic {topic!r}, which native.kafka adopts, does not exist",
                hint="create it, or drop native.kafka.topic",
            )
        else:
            self._create(channel, topic)

    def declare_group(self, channel: ChannelSpec, group: str) -> None:
        """A group of a stream begins to exist with its first commit."""

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        topic = topic_name(channel)
        partitions = topic_partitions(self._client, topic, _TIMEOUT_S)
        first = self._list_offsets(topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        end = self._list_offsets(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return [self._status(channel, group, first, end) for group in self._group_names(channel)]

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        raise NotSupported("a topic is not purged", hint="have the group seek to the end")

    def delete(self, channel: ChannelSpec) -> None:
        topic = topic_name(channel)
        if channel.native.topic is not None:
            raise NotSupported(f"topic {topic!r} was adopted and is not ours to delete")
        names = [group_id(channel, group) for group in self._group_names(channel)]
        self._client.delete_topics([topic], operation_timeout=_TIMEOUT_S)[topic].result(_TIMEOUT_S)
        if names:
            for deletion in self._client.delete_consumer_groups(names).values():
                deletion.exception(_TIMEOUT_S)  # one that never committed does not exist

    def close(self) -> None:
        """The client has no connection that needs closing."""

    def _compare(self, channel: ChannelSpec, there: int) -> None:
        if channel.partitions is not None and channel.partitions != there:
            raise TopologyConflict(
                f"topic {topic_name(channel)!r} has {there} partitions, "
                f"the channel says {channel.partitions}",
                hint=f"set partitions = {there}; adding some would break the order of keys",
            )

    def _create(self, channel: ChannelSpec, topic: str) -> None:
        config = dict(channel.native.config)
        if channel.retention_s is not None:
            config["retention.ms"] = str(int(channel.retention_s * 1000))
        new = NewTopic(
            topic,
            num_partitions=channel.partitions or DEFAULT_PARTITIONS,
            replication_factor=channel.native.replication_factor,
            config=config,
        )
        try:
            self._client.create_topics([new], operation_timeout=_TIMEOUT_S)[topic].result(
                _TIMEOUT_S
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        self._wait_for(topic)

    def _wait_for(self, topic: str) -> None:
        """Metadata spreads a moment after creation; a producer would meet 'unknown topic'."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not topic_partitions(self._client, topic, _TIMEOUT_S):
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            time.sleep(0.05)

    def _group_names(self, channel: ChannelSpec) -> list[str]:
        """Declared groups, and those the broker knows under this channel's prefix."""
        if channel.native.group is not None:
            return list(channel.groups) or [channel.native.group]
        prefix = group_id(channel, "")
        known = self._client.list_consumer_groups(request_timeout=_TIMEOUT_S).result(_TIMEOUT_S)
        found = [
            g.group_id.removeprefix(prefix) for g in known.valid if g.group_id.startswith(prefix)
        ]
        return list(dict.fromkeys([*channel.groups, *sorted(found)]))

    def _status(
        self, channel: ChannelSpec, group: str, first: dict[int, int], end: dict[int, int]
    ) -> GroupStatus:
        name = group_id(channel, group)
        committed = self._committed(name, topic_name(channel), list(end))
        lag = sum(end[p] - committed.get(p, first[p]) for p in end)
        return GroupStatus(group=group, lag=lag, consumers=self._members(name))

    def _committed(self, group: str, topic: str, partitions: list[int]) -> dict[int, int]:
        request = ConsumerGroupTopicPartitions(
            group, [TopicPartition(topic, p) for p in partitions]
        )
        answer = self._client.list_consumer_group_offsets([request])[group]
        try:
            places = answer.result(_TIMEOUT_S).topic_partitions
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return {}
            raise
        return {place.partition: place.offset for place in places if place.offset >= 0}

    def _members(self, group: str) -> int | None:
        try:
            answer = self._client.describe_consumer_groups([group])[group].result(_TIMEOUT_S)
        except KafkaException as error:
            missing = error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
            return 0 if missing else None
        return len(answer.members)

    def _list_offsets(self, topic: str, partitions: list[int], spec: Any) -> dict[int, int]:
        if not partitions:
            return {}
        wanted = {TopicPartition(topic, p): spec for p in partitions}
        answers = self._client.list_offsets(wanted, request_timeout=_TIMEOUT_S)
        return {
            place.partition: answer.result(_TIMEOUT_S).offset for place, answer in answers.items()
        }
