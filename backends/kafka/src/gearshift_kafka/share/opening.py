"""From a consumer's spec to a share queue with its clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Producer, ShareConsumer, TopicPartition
from confluent_kafka.admin import AdminClient

from gearshift.driver import ConsumerSpec
from gearshift.errors import ConfigError
from gearshift_kafka.names import group_id, topic_name
from gearshift_kafka.native import ClientKind
from gearshift_kafka.offsets import QUERY_TIMEOUT_S
from gearshift_kafka.share.copies import Copies
from gearshift_kafka.share.lane import Lane, Membership
from gearshift_kafka.share.limits import GroupSettings, group_settings
from gearshift_kafka.share.mover import Mover
from gearshift_kafka.share.names import delay_topic, retry_topic
from gearshift_kafka.share.queue import ShareQueue, lane_size
from gearshift_kafka.share.topology import beginnings

__all__ = ["open_share_queue"]

#: A message is handed out at least twice before it has to be stored again.
_LEAST_DELIVERIES = 3


#: A new group takes a second or two to assign its first member; later ones are quick.
_JOIN_S = 6.0


@dataclass(frozen=True, slots=True)
class _Opening:
    spec: ConsumerSpec
    conf: Callable[[ClientKind], dict[str, Any]]
    settings: GroupSettings

    def lane(self, topic: str, group: str, first: dict[int, int], *, is_retry: bool) -> Lane:
        size = lane_size(self.spec.prefetch)
        membership = Membership()
        ours = {
            "stats_cb": membership.on_statistics,
            "statistics.interval.ms": 250,
            "group.id": group,
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
            is_retry=is_retry,
        )

    def mover_consumer(self) -> Consumer:
        # The classic protocol, because there a client may say how soon it is missed.
        ours = {
            "group.id": delay_topic(self.spec.channel, self.spec.group),
            "client.id": self.spec.member,
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1500,
        }
        return Consumer(self.conf("reader") | ours)


def open_share_queue(
    spec: ConsumerSpec,
    conf: Callable[[ClientKind], dict[str, Any]],
    failures: deque[Exception],
    partitions: list[int],
) -> ShareQueue:
    """Connect and consume. Blocks; raises KafkaException, NotSupported, ConfigError."""
    topic, group = topic_name(spec.channel), group_id(spec.channel, spec.group)
    retry, delay = retry_topic(spec.channel, spec.group), delay_topic(spec.channel, spec.group)
    settings = group_settings(AdminClient(conf("admin")), group)
    if settings.deliveries < _LEAST_DELIVERIES:
        raise ConfigError(
            f"the broker drops a message after {settings.deliveries} deliveries",
            hint=f"set share.delivery.count.limit of group {group!r} to 5 or more",
        )
    opening = _Opening(spec, conf, settings)
    consumer = opening.mover_consumer()
    try:
        asked = [TopicPartition(topic, partition) for partition in partitions]
        first = beginnings(consumer.committed(asked, timeout=QUERY_TIMEOUT_S))
        copies = Copies(lambda: Producer(conf("producer")), delay=delay, retry=retry)
        queue = ShareQueue(
            topic,
            new_lane=lambda: opening.lane(topic, group, first, is_retry=False),
            new_retry_lane=lambda: opening.lane(retry, retry, {}, is_retry=True),
            copies=copies,
            mover=Mover(consumer, copies, delay=delay, retry=retry),
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
