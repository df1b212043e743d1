"""Topics and groups: declaring, looking, emptying, deleting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from gearshift.capabilities import Capabilities
from gearshift.driver import AdminDriver, ChannelSpec, Condition, GroupStatus
from gearshift.errors import NotSupported, UsageError
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift_kafka.admin_client import REQUEST_S, answer, ask, suppressed
from gearshift_kafka.names import group_id, group_prefix, helper_topics, topic_name
from gearshift_kafka.queue.topology import Positions, ShareGroups
from gearshift_kafka.replication import conditions
from gearshift_kafka.topics import HEADROOM, Topics

__all__ = ["Admin", "group_exists", "lag"]

log = logging.getLogger("gearshift.kafka")

_TIMEOUT_S = 8.0


def group_exists(client: AdminClient, group: str) -> bool:
    """True if the group has a member or a position somewhere. Blocks; raises KafkaException."""
    return group in _all_groups(client)


class Admin(AdminDriver):
    """See AdminDriver."""

    def __init__(
        self,
        client: AdminClient,
        topics: Topics,
        *,
        positions: Positions,
        require_share_groups: Callable[[], None],
        client_bytes: int,
    ) -> None:
        """``require_share_groups`` raises if they are switched off. ``client_bytes`` is the largest
        message that the profile's producers send."""
        self._client = client
        self._topics = topics
        self._client_bytes = client_bytes
        self._positions = positions
        self._require_share_groups = require_share_groups
        self._share = ShareGroups(client, topics, positions)

    def server(self) -> str:
        """Kafka tells no version to clients; the number of its brokers is what people can use."""
        count = len(self._client.list_topics(timeout=_TIMEOUT_S).brokers)
        return f"Apache Kafka, {count} broker{'s' * (count != 1)}"

    def capabilities(self, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        if channel.semantics is Semantics.QUEUE:
            self._require_share_groups()
        limit = self._topics.limit(topic_name(channel))
        if limit is None:
            return declared
        largest = min(limit, self._client_bytes) - HEADROOM
        return replace(declared, max_message_bytes=max(declared.max_message_bytes, largest))

    def exists(self, channel: ChannelSpec) -> bool:
        return bool(self._topics.partitions(topic_name(channel)))

    def declare(self, channel: ChannelSpec) -> None:
        if channel.semantics is Semantics.QUEUE:
            self._require_share_groups()
            self._share.require(channel)
        self._topics.declare(channel)
        if channel.semantics is Semantics.QUEUE:  # one of a stream begins with its first member
            for group in channel.groups:
                self._share.declare(channel, group)

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        if channel.semantics is Semantics.QUEUE:  # of share groups, this client can ask nothing
            return [GroupStatus(group=group) for group in self._share.known(channel)]
        topic = topic_name(channel)
        names = {group: group_id(channel, group) for group in self._group_names(channel, topic)}
        # Positions before ends: a group that works meanwhile would be ahead of what was the end.
        committed = {group: self._committed(name).get(topic, {}) for group, name in names.items()}
        first, end = self._topics.ends(topic)
        return [
            GroupStatus(
                group=group,
                lag=lag(committed[group], first, end),
                retained=None if committed[group] else sum(end[p] - first[p] for p in end),
                consumers=self._members(name),
            )
            for group, name in names.items()
        ]

    def replication(self, channels: Sequence[ChannelSpec]) -> Sequence[Condition]:
        topics = []
        for channel in channels:
            topics.append((channel.name, topic_name(channel)))
            if channel.semantics is Semantics.QUEUE:
                for group in channel.groups:
                    topics += [(channel.name, name) for name in helper_topics(channel, group)]
        return list(conditions(self._client, topics))

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
        first, end = self._topics.ends(topic)
        thrown_away = lag(self._committed(name).get(topic, {}), first, end)
        places = [TopicPartition(topic, partition, offset) for partition, offset in end.items()]
        request = ConsumerGroupTopicPartitions(name, places)
        changed = ask(self._client.alter_consumer_group_offsets, request, name)
        for place in changed.topic_partitions:
            if place.error is not None:
                raise KafkaException(place.error)
        return thrown_away

    def delete(self, channel: ChannelSpec) -> None:
        topic = topic_name(channel)
        if channel.native.topic is not None:
            raise NotSupported(f"topic {topic!r} was adopted and is not ours to delete")
        is_queue = channel.semantics is Semantics.QUEUE
        topics, groups = self._queue_parts(channel) if is_queue else self._stream_parts(channel)
        # Groups first: after its topic a group was found to stay, with nobody in it (measured).
        # With members it cannot be deleted. It ends by itself some minutes after the last of them.
        for group in groups:
            with suppressed({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP}):
                ask(self._client.delete_consumer_groups, group)
        self._topics.delete([*topics, topic])

    def _stream_parts(self, channel: ChannelSpec) -> tuple[list[str], list[str]]:
        """Further topics, and the groups, that go with a stream: no topics."""
        # Only groups that read nothing else: another channel's ids may begin alike.
        topic = topic_name(channel)
        return [], [
            name
            for group in self._group_names(channel, topic)
            if (name := group_id(channel, group)) != channel.native.group
            and self._committed(name).keys() <= {topic}
        ]

    def _queue_parts(self, channel: ChannelSpec) -> tuple[list[str], list[str]]:
        """Further topics, and the groups, that go with a queue."""
        topics: list[str] = []
        groups: list[str] = []
        for group in self._share.known(channel):
            helpers = self._share.forget(channel, group)
            topics += helpers  # the node that is asked may not have heard yet of one that is there
            groups += [group_id(channel, group), *helpers]
        return topics, [name for name in groups if name != channel.native.group]

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
            found = ask(self._client.describe_consumer_groups, group)
        except KafkaException as error:
            missing = error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
            return 0 if missing else None
        return len(found.members)


def _all_groups(client: AdminClient) -> list[str]:
    known = answer(lambda: client.list_consumer_groups(request_timeout=REQUEST_S))
    return sorted(group.group_id for group in known.valid or ())


def lag(committed: dict[int, int], first: dict[int, int], end: dict[int, int]) -> int | None:
    """Messages after a group's positions; None for one that has none, and may start anywhere.

    A partition without position was added later, and is read from its beginning. A log that was cut
    off or made anew may end before a position. Offsets are counted: what transactions and
    compaction leave between messages counts too.
    """
    if not committed:
        return None
    return sum(max(0, end[p] - max(first[p], committed.get(p, first[p]))) for p in end)
