"""From a consumer's spec to a share queue with its clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from confluent_kafka import Consumer, Producer, ShareConsumer, TopicPartition
from confluent_kafka.admin import AdminClient

from gearshift.driver import ConsumerSpec
from gearshift.errors import ConfigError, UnknownChannel
from gearshift_kafka.names import group_id, helper_topics, topic_name, topic_partitions
from gearshift_kafka.native import ClientKind
from gearshift_kafka.queue.consumer import QueueConsumer, lane_size
from gearshift_kafka.queue.copies import Copies
from gearshift_kafka.queue.lane import Lane, Membership, Source
from gearshift_kafka.queue.limits import group_settings
from gearshift_kafka.queue.mover import Mover
from gearshift_kafka.queue.topology import beginnings
from gearshift_kafka.signals import Heard, Signals
from gearshift_kafka.stream.offsets import QUERY_TIMEOUT_S

__all__ = ["open_share_queue"]

#: A suspect is handed out at least once before it has to be stored again.
_LEAST_DELIVERIES = 3

#: A share group hands out whole batches, and suspects are taken one by one.
_SINGLE = {"batch.num.messages": 1}

#: A new group takes a second or two to assign its first member; later ones are quick.
_JOIN_S = 6.0


@dataclass(frozen=True, slots=True)
class _Clients:
    """Makes the clients of one consumer. ``first`` is where its group begins, per partition."""

    spec: ConsumerSpec
    conf: Callable[[ClientKind], dict[str, Any]]
    lock_s: float
    first: Mapping[int, int] = field(default_factory=dict)

    def lane(self, source: Source, size: int | None = None) -> Lane:
        """A share consumer that holds up to ``size`` messages."""
        channel, helpers = self.spec.channel, helper_topics(self.spec.channel, self.spec.group)
        topic, group = {
            Source.CHANNEL: (topic_name(channel), group_id(channel, self.spec.group)),
            Source.RETRIES: (helpers.retry, helpers.retry),
            Source.SUSPECTS: (helpers.suspects, helpers.suspects),
        }[source]
        size = size or lane_size(self.spec.prefetch)
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
            lock_s=self.lock_s,
            beginnings=self.first if source is Source.CHANNEL else {},
            membership=membership,
            source=source,
        )

    def mover_consumer(self, heard: Heard) -> Consumer:
        """A member of the consumer group that reads the delay topic."""
        # The classic protocol, because there a client may say how soon it is missed.
        ours = {
            "group.id": helper_topics(self.spec.channel, self.spec.group).delay,
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
    signals: Signals,
    partitions: list[int],
) -> QueueConsumer:
    """Connect and consume. Blocks; raises KafkaException, NotSupported, ConfigError."""
    topic, group = topic_name(spec.channel), group_id(spec.channel, spec.group)
    helpers = helper_topics(spec.channel, spec.group)
    settings = group_settings(AdminClient(conf("admin")), group)
    if settings.deliveries < _LEAST_DELIVERIES:
        raise ConfigError(
            f"the broker drops a message after {settings.deliveries} deliveries",
            hint=f"set share.delivery.count.limit of group {group!r} to 5 or more",
        )
    clients, heard = _Clients(spec, conf, settings.lock_s), Heard()
    consumer = clients.mover_consumer(heard)
    try:
        asked = [TopicPartition(topic, partition) for partition in partitions]
        first = beginnings(consumer.committed(asked, timeout=QUERY_TIMEOUT_S))
        if not topic_partitions(consumer, helpers.suspects, QUERY_TIMEOUT_S):
            raise UnknownChannel(
                f"topic {helpers.suspects!r} does not exist", hint="declare the channel again"
            )
        copies = Copies(lambda: Producer(conf("producer") | _SINGLE), helpers)
        queue = QueueConsumer(
            topic,
            replace(clients, first=first).lane,
            copies,
            Mover(consumer, copies, heard, helpers),
            signals,
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
