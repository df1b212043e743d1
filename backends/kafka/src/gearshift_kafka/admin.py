"""Topics and groups: declaring, looking, emptying, deleting."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from gearshift.capabilities import Capabilities
from gearshift.driver import AdminDriver, ChannelSpec, Condition, GroupStatus
from gearshift.errors import NotSupported, TopologyConflict, UnknownChannel, UsageError
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift_kafka.asking import REQUEST_S, answer, answers, ask, change, describe, number
from gearshift_kafka.errors import TRANSIENT, UNKNOWN_TOPIC
from gearshift_kafka.names import (
    group_id,
    group_prefix,
    helper_topics,
    topic_name,
    topic_partitions,
)
from gearshift_kafka.queue.topology import Positions, ShareGroups
from gearshift_kafka.replication import conditions, copies_of, create

__all__ = ["Admin", "group_exists", "lag"]

log = logging.getLogger("gearshift.kafka")

_TIMEOUT_S = 8.0

_LIMIT = "max.message.bytes"

#: Between a topic's limit and ``Message.size``: what a record and our headers need besides.
_HEADROOM = 48_588
#: The broker's default for a topic's limit.
_USUAL_LIMIT = 1_048_588

DEFAULT_PARTITIONS = 4


def group_exists(client: AdminClient, group: str) -> bool:
    """True if the group has a member or a position somewhere. Blocks; raises KafkaException."""
    return group in _all_groups(client)


class Admin(AdminDriver):
    """See AdminDriver."""

    def __init__(
        self,
        client: AdminClient,
        *,
        positions: Positions,
        require_share_groups: Callable[[], None],
        client_bytes: int,
        sees_uncommitted: bool,
        warned: set[str],
    ) -> None:
        """``require_share_groups`` raises if they are switched off. ``client_bytes`` is the largest
        message that the profile's producers send. Its consumers read up to the first open
        transaction, unless they ``see_uncommitted``. ``warned`` are topics whose copies have been
        looked at."""
        self._client = client
        self._client_bytes = client_bytes
        self._positions = positions
        self._warned = warned
        self._require_share_groups = require_share_groups
        self._isolation = (
            IsolationLevel.READ_UNCOMMITTED if sees_uncommitted else IsolationLevel.READ_COMMITTED
        )
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
        if channel.semantics is Semantics.QUEUE:
            self._require_share_groups()
        limit = self._limit(topic_name(channel))
        if limit is None:
            return declared
        largest = min(limit, self._client_bytes) - _HEADROOM
        return replace(declared, max_message_bytes=max(declared.max_message_bytes, largest))

    def exists(self, channel: ChannelSpec) -> bool:
        return bool(topic_partitions(self._client, topic_name(channel), _TIMEOUT_S))

    def declare(self, channel: ChannelSpec) -> None:
        if channel.semantics is Semantics.QUEUE:
            self._require_share_groups()
            self._share.require(channel)
        self._declare_topic(channel)
        if channel.semantics is Semantics.QUEUE:  # one of a stream begins with its first member
            for group in channel.groups:
                self._share.declare(channel, group)

    def _declare_topic(self, channel: ChannelSpec) -> None:
        topic = topic_name(channel)
        there = topic_partitions(self._client, topic, _TIMEOUT_S)
        if there:
            self._compare(channel, topic, len(there))
            self._warn_of_copies(topic)
            room = _room(channel)
            if room is not None and channel.native.topic is None:
                self._make_room(topic, room)
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
        names = {group: group_id(channel, group) for group in self._group_names(channel, topic)}
        # Positions before ends: a group that works meanwhile would be ahead of what was the end.
        committed = {group: self._committed(name).get(topic, {}) for group, name in names.items()}
        first, end = self._ends(topic)
        return [
            GroupStatus(
                group=group, lag=lag(committed[group], first, end), consumers=self._members(name)
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
        first, end = self._ends(topic)
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
            with _suppressed({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP}):
                ask(self._client.delete_consumer_groups, group)
        for name in (*topics, topic):
            with _suppressed(UNKNOWN_TOPIC):
                ask(self._client.delete_topics, name)
        self._wait_until(topic, is_there=False)

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
            topics += [t for t in helpers if topic_partitions(self._client, t, _TIMEOUT_S)]
            groups += [group_id(channel, group), *helpers]
        return topics, [name for name in groups if name != channel.native.group]

    # ── topics ──

    def _compare(self, channel: ChannelSpec, topic: str, there: int) -> None:
        if channel.partitions is not None and channel.partitions != there:
            raise TopologyConflict(
                f"topic {topic!r} has {there} partitions, the channel says {channel.partitions}",
                hint=f"set partitions = {there}; adding some would break the order of keys",
            )
        if channel.retention_s is None:
            return
        wanted = _retention_ms(channel.retention_s)
        has = describe(self._client, ResourceType.TOPIC, topic)["retention.ms"].value
        if has != wanted:
            raise TopologyConflict(
                f"topic {topic!r} has retention.ms {has}, the channel says {wanted}",
                hint="change the topic, or retention_s of the channel",
            )

    def _warn_of_copies(self, topic: str) -> None:
        """Once: say what one node that is down would stop, of a topic that somebody made so."""
        if topic in self._warned:
            return
        self._warned.add(topic)
        copies = copies_of(self._client, topic)
        if copies is not None and copies.is_weak:
            log.warning("%s; %s: %s", copies, copies.after_a_loss, copies.problem)

    def _limit(self, topic: str) -> int | None:
        """The topic's largest message with all that goes with it; None if we may not know."""
        return number(self._client, ResourceType.TOPIC, topic, _LIMIT)

    def _make_room(self, topic: str, wanted: int) -> None:
        """Let a topic of ours take what it must hold. One that we may not change stays as it is:
        what does not fit is refused when it is sent."""
        limit = self._limit(topic)
        if limit is None or limit >= wanted:
            return
        try:
            change(self._client, ResourceType.TOPIC, topic, {_LIMIT: str(wanted)})
        except KafkaException as error:
            log.warning("topic %r keeps max.message.bytes %d: %s", topic, limit, error)

    def _create(self, channel: ChannelSpec, topic: str) -> None:
        config = dict(channel.native.config)
        room = _room(channel)
        if room is not None and _LIMIT not in config:
            config[_LIMIT] = str(room)
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

    def _create_unless_there(self, new: NewTopic, source: str) -> None:
        """Create a topic for copies of what ``source`` holds, with room for the largest of it."""
        limit = self._limit(source)
        room = None if limit is None or limit <= _USUAL_LIMIT else limit + _HEADROOM
        if topic_partitions(self._client, new.topic, _TIMEOUT_S):
            if room is not None:
                self._make_room(new.topic, room)
            return
        if room is not None:
            new.config = {**(new.config or {}), _LIMIT: str(room)}
        self._create_topic(new)

    def _create_topic(self, new: NewTopic) -> bool:
        """Create a topic and wait until it can be used; False if it was there already."""
        is_new = False
        with _suppressed({KafkaError.TOPIC_ALREADY_EXISTS}):
            create(self._client, new)
            is_new = True
        self._wait_until(new.topic, is_there=True)
        return is_new

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
        """First offset of every partition, and the one behind the last that can be read."""
        partitions = topic_partitions(self._client, topic, _TIMEOUT_S)
        first, latest = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._list_offsets(topic, partitions, first), self._list_offsets(
            topic, partitions, latest, isolation_level=self._isolation
        )

    def _next_offsets(self, topic: str) -> dict[int, int]:
        """Of a topic that was made just now: the next node that is asked may not know it yet."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not (partitions := topic_partitions(self._client, topic, _TIMEOUT_S)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return self._list_offsets(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def _list_offsets(
        self, topic: str, partitions: list[int], spec: Any, **how: Any
    ) -> dict[int, int]:
        if not partitions:
            return {}
        wanted = {TopicPartition(topic, partition): spec for partition in partitions}
        found = answers(
            lambda: self._client.list_offsets(wanted, request_timeout=REQUEST_S, **how),
            again=TRANSIENT | UNKNOWN_TOPIC,  # not every node of a cluster has heard of it
        )
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
            found = ask(self._client.describe_consumer_groups, group)
        except KafkaException as error:
            missing = error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
            return 0 if missing else None
        return len(found.members)


@contextlib.contextmanager
def _suppressed(codes: Collection[int]) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() not in codes:
            raise


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


def _room(channel: ChannelSpec) -> int | None:
    """The ``max.message.bytes`` with which the largest message that must fit does; None where
    the broker's default will do."""
    largest = channel.largest_bytes
    if largest is None or largest + _HEADROOM < _USUAL_LIMIT:
        return None
    return largest + 2 * _HEADROOM


def _retention_ms(retention_s: float) -> str:
    return str(int(retention_s * 1000))
