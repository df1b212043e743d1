"""Topics: creating, comparing and deleting them, their limits and their ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec, ResourceType  # type: ignore[attr-defined]

from gearshift.driver import ChannelSpec
from gearshift.errors import TopologyConflict, UnknownChannel
from gearshift.message import Semantics
from gearshift_kafka.admin_client import (
    REQUEST_S,
    answers,
    ask,
    change,
    describe,
    number,
    suppressed,
)
from gearshift_kafka.errors import TRANSIENT, UNKNOWN_TOPIC
from gearshift_kafka.names import topic_name, topic_partitions
from gearshift_kafka.replication import COPIES, copies_of, create

__all__ = ["HEADROOM", "Topics"]

log = logging.getLogger("gearshift.kafka")

_TIMEOUT_S = 8.0

_LIMIT = "max.message.bytes"

#: Between a topic's limit and ``Message.size``: what a record and our headers need besides.
HEADROOM = 48_588
#: The broker's default for a topic's limit.
_USUAL_LIMIT = 1_048_588

_DEFAULT_PARTITIONS = 4


class Topics:
    """The topics of a cluster, over one admin client. Blocks; raises KafkaException."""

    def __init__(self, client: AdminClient, *, sees_uncommitted: bool, warned: set[str]) -> None:
        """The profile's consumers read up to the first open transaction, unless they see what is
        uncommitted. ``warned`` are topics whose copies have been looked at."""
        self._client = client
        self._warned = warned
        self._copies = COPIES  # for new topics; fewer once that is known to be too many
        self._isolation = (
            IsolationLevel.READ_UNCOMMITTED if sees_uncommitted else IsolationLevel.READ_COMMITTED
        )

    def partitions(self, topic: str) -> list[int]:
        """The topic's partitions; empty if it does not exist."""
        return topic_partitions(self._client, topic, _TIMEOUT_S)

    def declare(self, channel: ChannelSpec) -> None:
        """See AdminDriver.declare, of the channel's own topic."""
        topic = topic_name(channel)
        there = self.partitions(topic)
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

    def delete(self, topics: Sequence[str]) -> None:
        """Delete those that are there, and wait until the last of them is gone."""
        for topic in topics:
            with suppressed(UNKNOWN_TOPIC):
                ask(self._client.delete_topics, topic)
        self._wait_until(topics[-1], is_there=False)

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

    def limit(self, topic: str) -> int | None:
        """The topic's largest message with all that goes with it; None if we may not know."""
        return number(self._client, ResourceType.TOPIC, topic, _LIMIT)

    def _make_room(self, topic: str, wanted: int) -> None:
        """Let a topic of ours take what it must hold. One that we may not change stays as it is:
        what does not fit is refused when it is sent."""
        limit = self.limit(topic)
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
        default = channel.native.partitions if is_queue else _DEFAULT_PARTITIONS
        new = NewTopic(
            topic,
            num_partitions=channel.partitions or default,
            replication_factor=channel.native.replication_factor,
            config=config,
        )
        is_new = self._create_topic(new)
        self._wait_until(topic, is_there=True)
        if not is_new:  # somebody else was quicker
            there = self.partitions(topic)
            self._compare(channel, topic, len(there))

    def create_helpers(self, wanted: Sequence[NewTopic], source: str) -> None:
        """Create topics for copies of what ``source`` holds, with room for the largest of it."""
        limit = self.limit(source)
        room = None if limit is None or limit <= _USUAL_LIMIT else limit + HEADROOM
        created = []
        for new in wanted:
            if not self.partitions(new.topic):
                if room is not None:
                    new.config = {**(new.config or {}), _LIMIT: str(room)}
                self._create_topic(new)
                created.append(new.topic)
            elif room is not None:
                self._make_room(new.topic, room)
        for topic in created:
            self._wait_until(topic, is_there=True)

    def _create_topic(self, new: NewTopic) -> bool:
        """Create a topic; False if it was there already. It is of use a moment later."""
        with suppressed({KafkaError.TOPIC_ALREADY_EXISTS}):
            self._copies = create(self._client, new, self._copies)
            return True
        return False

    def _wait_until(self, topic: str, *, is_there: bool) -> None:
        """Metadata spreads a moment after a change; a producer would meet 'unknown topic'."""
        deadline = time.monotonic() + _TIMEOUT_S
        while self._is_ready(topic) != is_there:
            if time.monotonic() > deadline:
                state = "has no leader yet" if is_there else "is still there"
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"topic {topic!r} {state}"))
            time.sleep(0.05)

    def _is_ready(self, topic: str) -> bool:
        """True if every partition has a leader."""
        found = self._client.list_topics(topic, timeout=_TIMEOUT_S).topics.get(topic)
        if found is None or found.error is not None or not found.partitions:
            return False
        return all(partition.leader >= 0 for partition in found.partitions.values())

    def ends(self, topic: str) -> tuple[dict[int, int], dict[int, int]]:
        """First offset of every partition, and the one behind the last that can be read."""
        partitions = self.partitions(topic)
        first, latest = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._list_offsets(topic, partitions, first), self._list_offsets(
            topic, partitions, latest, isolation_level=self._isolation
        )

    def next_offsets(self, topic: str) -> dict[int, int]:
        """The next message's offset in every partition, also of a topic that was made just now."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not (partitions := self.partitions(topic)):  # the next node may not know it yet
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        try:
            return self._list_offsets(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        except KafkaException as error:
            if error.args[0].code() not in UNKNOWN_TOPIC:
                raise
            # It is there, and a slow cluster has not told all its nodes: worth another attempt.
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error

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


def _room(channel: ChannelSpec) -> int | None:
    """The ``max.message.bytes`` with which the largest message that must fit does; None where
    the broker's default will do."""
    largest = channel.largest_bytes
    if largest is None or largest + HEADROOM < _USUAL_LIMIT:
        return None
    return largest + 2 * HEADROOM


def _retention_ms(retention_s: float) -> str:
    return str(int(retention_s * 1000))
