"""From a consumer's spec to a share queue with its clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from confluent_kafka import Consumer, Producer, ShareConsumer, TopicPartition
from confluent_kafka.admin import AdminClient

from gearshift.driver import ConsumerSpec
from gearshift.errors import ConfigError, UnknownChannel
from gearshift_kafka.heard import Heard
from gearshift_kafka.names import group_id, topic_name, topic_partitions
from gearshift_kafka.native import ClientKind
from gearshift_kafka.queue.consumer import QueueConsumer, lane_size
from gearshift_kafka.queue.copies import Copies
from gearshift_kafka.queue.lane import Lane, Membership, Source
from gearshift_kafka.queue.limits import GroupSettings, group_settings
from gearshift_kafka.queue.mover import Mover
from gearshift_kafka.queue.names import delay_topic, retry_topic, suspects_topic
from gearshift_kafka.queue.suspects import Suspects
from gearshift_kafka.queue.topology import beginnings
from gearshift_kafka.stream.offsets import QUERY_TIMEOUT_S

__all__ = ["open_share_queue"]

#: A suspect is handed out at least once before it has to be stored again.
_LEAST_DELIVERIES = 3

#: A share group hands out whole batches, and suspects are taken one by one.
_SINGLE = {"batch.num.messages": 1}

#: A new group takes a second or two to assign its first member; later ones are quick.
_JOIN_S = 6.0


@dataclass(frozen=True, slots=True)
class _Opening:
    spec: ConsumerSpec
    conf: Callable[[ClientKind], dict[str, Any]]
    settings: GroupSettings

    def lane(
        self,
        source: Source,
        topic: str,
        *,
        group: str | None = None,
        size: int | None = None,
        first: Mapping[int, int] = MappingProxyType({}),
    ) -> Lane:
        size = size or lane_size(self.spec.prefetch)
        membership = Membership()
        ours = {
            "stats_cb": membership.on_statistics,
            "statistics.interval.ms": 250,
            "group.id": group or topic,
            "client.id": self.spec.member,
            "share.acknowledgement.mode": "explicit",
            "max.poll.records": size,
        }
        return Lane(
            ShareConsumer(self.conf("share") | ours),
            topic,
            size=size,
            lock_s=self.settings.lock_s,
            beginnings=first,
            membership=membership,
            source=source,
        )

    def mover_consumer(self, heard: Heard) -> Consumer:
        # The classic protocol, because there a client may say how soon it is missed.
        ours = {
            "group.id": delay_topic(self.spec.channel, self.spec.group),
            "client.id": self.spec.member,
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1500,
            "auto.offset.reset": "earliest",
        }
        return Consumer(self.conf("reader") | heard.conf() | ours)


def open_share_queue(
    spec: ConsumerSpec,
    conf: Callable[[ClientKind], dict[str, Any]],
    failures: deque[Exception],
    partitions: list[int],
) -> QueueConsumer:
    """Connect and consume. Blocks; raises KafkaException, NotSupported, ConfigError."""
    topic, group = topic_name(spec.channel), group_id(spec.channel, spec.group)
    retry, delay = retry_topic(spec.channel, spec.group), delay_topic(spec.channel, spec.group)
    suspects = suspects_topic(spec.channel, spec.group)
    settings = group_settings(AdminClient(conf("admin")), group)
    if settings.deliveries < _LEAST_DELIVERIES:
        raise ConfigError(
            f"the broker drops a message after {settings.deliveries} deliveries",
            hint=f"set share.delivery.count.limit of group {group!r} to 5 or more",
        )
    opening = _Opening(spec, conf, settings)
    heard = Heard()
    consumer = opening.mover_consumer(heard)
    try:
        asked = [TopicPartition(topic, partition) for partition in partitions]
        first = beginnings(consumer.committed(asked, timeout=QUERY_TIMEOUT_S))
        if not topic_partitions(consumer, suspects, QUERY_TIMEOUT_S):
            raise UnknownChannel(
                f"topic {suspects!r} does not exist", hint="declare the channel again"
            )
        copies = Copies(
            lambda: Producer(conf("producer") | _SINGLE),
            delay=delay,
            retry=retry,
            suspects=suspects,
        )
        queue = QueueConsumer(
            topic,
            new_lane=lambda: opening.lane(Source.CHANNEL, topic, group=group, first=first),
            new_retry_lane=lambda: opening.lane(Source.RETRIES, retry),
            suspects=Suspects(lambda size: opening.lane(Source.SUSPECTS, suspects, size=size)),
            copies=copies,
            mover=Mover(consumer, copies, heard, delay=delay, retry=retry, suspects=suspects),
            failures=failures,
            deliveries=settings.deliveries,
        )
    except BaseException:
        consumer.close()
        raise
    try:
        queue.join(_JOIN_S)
    except BaseException:
        queue.close(1.0)
        raise
    return queue
