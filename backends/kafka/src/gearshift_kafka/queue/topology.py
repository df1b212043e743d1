"""A queue's groups on the broker: where they begin, their lock, their helper topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, ResourceType  # type: ignore[attr-defined]

from gearshift.driver import ChannelSpec
from gearshift.errors import ConfigError
from gearshift_kafka.admin_client import ask, change
from gearshift_kafka.names import group_id, groups_among, helper_topics, topic_name
from gearshift_kafka.queue.delays import STEPS
from gearshift_kafka.queue.limits import (
    ISOLATION,
    LOCK_MS,
    RESET,
    TIMEOUT_S,
    broker_number,
    group_settings,
)
from gearshift_kafka.topics import Topics

__all__ = ["Positions", "ShareGroups", "beginnings"]

#: Asks for the positions of a consumer group. Blocks; raises KafkaException. Not by the admin
#: client: while a coordinator loads, its answer to that question crashes the process (measured
#: with librdkafka 2.16.0).
Positions: TypeAlias = Callable[[str, list[TopicPartition]], list[TopicPartition]]

#: A group with members, or one that has just lost them, keeps its positions to itself.
_IN_USE = frozenset((KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID))

#: A retry may wait for a week.
_DELAY_RETENTION_MS = 14 * 86_400_000


class ShareGroups:
    """Declares and deletes the groups of queue channels. Blocks; raises KafkaException.

    A group gets what is sent after it exists, which on Kafka has to be said: a share group that
    begins at ``latest`` misses what was sent before its first consumer, and one that begins at
    ``earliest`` gets all history. So groups begin at ``earliest``, and the topic's end when they
    were declared is kept, as positions of the consumer group of the delay topic: consumers drop
    what lies before.

    A group exists if it has either, that setting or these positions. A setting takes a moment to
    reach every broker, and positions are forgotten if nobody consumes for a week; taking a group
    for new that is not would lose what waits for it.
    """

    def __init__(self, client: AdminClient, topics: Topics, positions: Positions) -> None:
        self._client = client
        self._topics = topics
        self._positions = positions

    def require(self, channel: ChannelSpec) -> None:
        """Raise NotSupported if the broker has no share groups, before anything is created."""
        group_settings(self._client, channel.name)

    def declare(self, channel: ChannelSpec, group: str) -> None:
        """Create ``group`` unless it is there; the same again does nothing."""
        # Asked for before anything else: nobody has declared the group, and could send to it, by
        # then if it does not exist below.
        ends = self._topics.next_offsets(topic_name(channel))
        name, helpers = group_id(channel, group), helper_topics(channel, group)
        is_declared = group_settings(self._client, name).is_declared
        wanted = [_helper(channel, topic, is_delay=topic == helpers.delay) for topic in helpers]
        self._topics.create_helpers(wanted, topic_name(channel))
        if not is_declared:
            self._begin_at(channel, group, ends)
        for target in self._share_groups(channel, group):
            known = group_settings(self._client, target)
            values: dict[str, str | None] = {} if known.is_declared else {RESET: "earliest"}
            if not known.is_isolated:
                values[ISOLATION] = "read_committed"  # as streams; by default it is not
            values |= self._lock(channel, known.lock_s)
            if values:
                change(self._client, ResourceType.GROUP, target, values)
                self._wait_until_declared(target)

    def forget(self, channel: ChannelSpec, group: str) -> tuple[str, ...]:
        """Take back the settings of ``group``; returns its topics, which the caller deletes."""
        for name in self._share_groups(channel, group):
            settings = dict.fromkeys((RESET, LOCK_MS, ISOLATION))
            change(self._client, ResourceType.GROUP, name, settings)
        return helper_topics(channel, group)

    def known(self, channel: ChannelSpec) -> list[str]:
        """Groups that were declared for the channel, by whomever."""
        topics = list(self._client.list_topics(timeout=TIMEOUT_S).topics)
        return list(dict.fromkeys([*channel.groups, *groups_among(channel, topics)]))

    def _share_groups(self, channel: ChannelSpec, group: str) -> list[str]:
        """Those that are ours to set, the channel's own last: it says that all are declared."""
        helpers, name = helper_topics(channel, group), group_id(channel, group)
        ours = [helpers.retry, helpers.suspects]
        return ours if name == channel.native.group else [*ours, name]

    def _lock(self, channel: ChannelSpec, lock_s: float) -> dict[str, str | None]:
        wanted_s = channel.max_processing_s
        if wanted_s is None or wanted_s == lock_s:
            return {}
        least = broker_number(self._client, "group.share.min.record.lock.duration.ms", 15_000)
        most = broker_number(self._client, "group.share.max.record.lock.duration.ms", 60_000)
        if wanted_s * 1000 > most:
            raise ConfigError(
                f"max_processing_s is {wanted_s:g}, but the broker locks a message for at most "
                f"{most / 1000:g} s",
                hint="lower it, or raise group.share.max.record.lock.duration.ms of the broker",
            )
        milliseconds = max(least, round(wanted_s * 1000))
        return {} if milliseconds == lock_s * 1000 else {LOCK_MS: str(milliseconds)}

    def _wait_until_declared(self, group: str) -> None:
        """A consumer that came before the setting would begin at the end."""
        deadline = time.monotonic() + TIMEOUT_S
        while not group_settings(self._client, group).is_declared:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            time.sleep(0.02)

    def _begin_at(self, channel: ChannelSpec, group: str, ends: Mapping[int, int]) -> None:
        topic, keeper = topic_name(channel), helper_topics(channel, group).delay
        kept = self._positions(keeper, [TopicPartition(topic, partition) for partition in ends])
        if any(place.offset >= 0 for place in kept):
            return
        places = [TopicPartition(topic, partition, offset) for partition, offset in ends.items()]
        wanted = ConsumerGroupTopicPartitions(keeper, places)
        try:
            ask(self._client.alter_consumer_group_offsets, wanted, keeper)
        except KafkaException as error:
            if error.args[0].code() not in _IN_USE:
                raise


def beginnings(committed: list[TopicPartition]) -> dict[int, int]:
    """Per partition the first offset that a group may get, from the positions that were kept."""
    return {place.partition: place.offset for place in committed if place.offset > 0}


def _helper(channel: ChannelSpec, topic: str, *, is_delay: bool) -> NewTopic:
    config = {"retention.ms": str(_DELAY_RETENTION_MS)} if is_delay else {}
    return NewTopic(
        topic,
        num_partitions=STEPS if is_delay else 1,
        replication_factor=channel.native.replication_factor,
        config=config,
    )
