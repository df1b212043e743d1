"""One Kafka cluster: makes drivers, and makes sure that their clients can reach it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from gearshift import driver
from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents, QueueDriver, Start, StartAt
from gearshift.errors import ConfigError, GearshiftError, UnknownChannel, UnknownGroup
from gearshift.message import Semantics
from gearshift_kafka.admin import Admin, group_exists
from gearshift_kafka.errors import LACKS_PROTOCOL, REFUSED_ACCESS, classify, code_of
from gearshift_kafka.names import group_id, helper_topics, topic_name, topic_partitions
from gearshift_kafka.native import ClientKind
from gearshift_kafka.producer import Producer
from gearshift_kafka.protocol import misfit, share_version
from gearshift_kafka.queue.ephemeral import EphemeralQueueConsumer
from gearshift_kafka.queue.limits import no_share_groups
from gearshift_kafka.queue.opening import open_share_queue
from gearshift_kafka.settings import Settings
from gearshift_kafka.signals import Signals
from gearshift_kafka.stream.commits import Commits
from gearshift_kafka.stream.consumer import StreamConsumer
from gearshift_kafka.stream.ephemeral import EphemeralStreamConsumer
from gearshift_kafka.stream.identity import TopicIdentity
from gearshift_kafka.stream.idle import IdleCheck
from gearshift_kafka.stream.offsets import QUERY_TIMEOUT_S
from gearshift_kafka.stream.reader import StreamReader
from gearshift_kafka.timestamps import topic_times
from gearshift_kafka.topics import Topics

__all__ = ["Backend"]

log = logging.getLogger("gearshift.kafka")

#: The client's own log lines; quiet unless somebody listens.
client_log = logging.getLogger("gearshift.kafka.client")
client_log.addHandler(logging.NullHandler())
client_log.propagate = False

_LONGEST_TOPIC = 249
_ASK_S = 1.0
_ASK_AGAIN_S = 0.1
_NOBODY_AFTER_S = 2.0
_JOIN_AGAIN_S = 2.0

#: The nodes of a cluster hear of a new topic one after the other; so long it may take.
HEARD_WITHIN_S = 3.0

#: A share group hands out whole batches, so a batch of many would make one member wait for
#: another's work. A profile may choose otherwise: it is quicker to send.
_QUEUE_PRODUCER = {"batch.num.messages": 1, "sticky.partitioning.linger.ms": 0}

Client: TypeAlias = confluent_kafka.Producer | confluent_kafka.Consumer | AdminClient


class Backend(driver.Backend):
    """Streams on topics and consumer groups, queues on share groups."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._servers = ", ".join(f"{host}:{port}" for host, port in settings.endpoints())
        # Learnt from the first broker that refuses; the same for all consumers from then on.
        self._is_classic = settings.group_protocol == "classic"
        self._has_warned = False
        self._warned_of_copies: set[str] = set()
        self._has_share_groups = False  # as far as is known
        self._join_at = 0.0  # not before: a static member that was killed has the place

    def endpoints(self) -> Sequence[tuple[str, int]]:
        return self._settings.endpoints()

    def check(self, channel: ChannelSpec) -> None:
        if channel.partitions is not None and channel.partitions < 1:
            raise ConfigError(f"partitions: {channel.partitions} is less than 1")
        names = [topic_name(channel)]
        if channel.semantics is Semantics.QUEUE:
            names += [name for group in channel.groups for name in helper_topics(channel, group)]
        if max(map(len, names)) > _LONGEST_TOPIC:
            raise ConfigError(f"native.kafka.topic: is longer than {_LONGEST_TOPIC} characters")
        if channel.native.group is not None and len(channel.groups) > 1:
            raise ConfigError(
                f"native.kafka.group adopts one group, but the channel lists {len(channel.groups)}"
            )

    def admin(self) -> Admin:
        signals = Signals()
        client = self._admin_client(signals)
        self._reach(client, None, signals)
        client_bytes = int(self._settings.client("producer")["message.max.bytes"])
        reader = self._settings.client("reader")
        topics = Topics(
            client,
            sees_uncommitted=reader.get("isolation.level") == "read_uncommitted",
            warned=self._warned_of_copies,
        )
        return Admin(
            client,
            topics,
            positions=self._positions,
            require_share_groups=self._require_share_groups,
            client_bytes=client_bytes,
        )

    def producer(self, channel: ChannelSpec) -> Producer:
        signals = Signals()
        conf = self._conf("producer", signals) | signals.heard.producer_conf()
        if channel.semantics is Semantics.QUEUE:
            conf = _QUEUE_PRODUCER | conf
        producer = confluent_kafka.Producer(conf)
        self._require_topic(producer, channel, signals)
        topic = topic_name(channel)
        times = topic_times(self._admin_client(signals), topic)
        return Producer(producer, topic, times, signals.heard)

    def queue_consumer(self, spec: ConsumerSpec) -> QueueDriver:
        if spec.ephemeral:
            latest = replace(spec, start=Start(StartAt.LATEST))
            return EphemeralQueueConsumer(
                spec.channel.name, lambda events: self.log_consumer(latest, events)
            )
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "queues on Kafka are experimental: librdkafka calls its share consumer a preview"
            )
        signals = Signals()
        partitions = self._require_topic(self._admin_client(signals), spec.channel, signals)
        return open_share_queue(spec, lambda kind: self._conf(kind, signals), signals, partitions)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> StreamReader:
        if not spec.ephemeral:
            time.sleep(max(0.0, self._join_at - time.monotonic()))
        signals, commits = Signals(), Commits(topic_name(spec.channel))
        conf = self._consumer_conf(spec, signals) | {"on_commit": commits.on_commit}
        consumer = confluent_kafka.Consumer(conf)
        try:
            return self._reader(consumer, spec, events, signals, commits)
        except BaseException:
            consumer.close()
            raise

    def classify(self, error: Exception) -> GearshiftError | None:
        if code_of(error) == KafkaError.UNRELEASED_INSTANCE_ID:
            self._join_at = time.monotonic() + _JOIN_AGAIN_S
        chosen = self._settings.group_protocol != "auto"
        if not chosen and code_of(error) in LACKS_PROTOCOL and not self._is_classic:
            log.warning("%s lacks KIP-848: using the classic group protocol", self._servers)
            self._is_classic = True
        return classify(
            error,
            self._servers,
            protocol_is_chosen=chosen,
            instance_id=self._settings.group_instance_id,
        )

    # ── consumers ──

    def _reader(
        self,
        consumer: confluent_kafka.Consumer,
        spec: ConsumerSpec,
        events: LogEvents,
        signals: Signals,
        commits: Commits,
    ) -> StreamReader:
        topic, group = topic_name(spec.channel), group_id(spec.channel, spec.group)
        partitions = self._require_topic(consumer, spec.channel, signals)
        if spec.ephemeral:
            return EphemeralStreamConsumer(
                consumer,
                topic,
                events,
                signals,
                start=spec.start,
                partitions=partitions,
                refresh_s=self._settings.refresh_s("reader"),
            )
        if group == spec.channel.native.group:
            self._require_group(group)
        return StreamConsumer(
            consumer,
            topic,
            events,
            signals,
            start=spec.start,
            partitions=partitions,
            commits=commits,
            idle=IdleCheck(self._admin_client, group),
            identity=TopicIdentity(self._admin_client, topic),
            is_static=self._settings.group_instance_id is not None,
        )

    def _consumer_conf(self, spec: ConsumerSpec, signals: Signals) -> dict[str, Any]:
        # A blank group.id aborts the process, so it is never passed on unchecked.
        group = spec.member if spec.ephemeral else group_id(spec.channel, spec.group)
        if not group.strip():
            raise ConfigError("group: is blank")
        ours: dict[str, Any] = {"group.id": group, "client.id": spec.member or group}
        ours["enable.partition.eof"] = not spec.ephemeral
        # One that reads alone joins nothing, and would only be refused by an older broker.
        if self._is_classic or spec.ephemeral:
            ours |= {
                "group.protocol": "classic",
                "partition.assignment.strategy": "cooperative-sticky",
            }
        else:
            ours["group.protocol"] = "consumer"
        if self._settings.group_instance_id is not None and not spec.ephemeral:
            ours["group.instance.id"] = self._settings.group_instance_id
        conf = self._conf("reader" if spec.ephemeral else "consumer", signals)
        return conf | signals.heard.conf() | ours

    def _require_group(self, group: str) -> None:
        if not group_exists(self._admin_client(), group):
            raise UnknownGroup(
                f"group {group!r}, which native.kafka adopts, does not exist",
                hint="check the name, or drop native.kafka.group",
            )

    def _positions(self, group: str, places: list[TopicPartition]) -> list[TopicPartition]:
        """The positions that ``group`` has committed, asked by a consumer: see ShareGroups."""
        ours = {"group.id": group, "group.protocol": "classic"}
        consumer = confluent_kafka.Consumer(self._conf("reader", Signals()) | ours)
        try:
            return consumer.committed(places, timeout=QUERY_TIMEOUT_S)
        finally:
            consumer.close()

    # ── clients ──

    def _admin_client(self, signals: Signals | None = None) -> AdminClient:
        """A client for questions; its errors go to ``signals``, or nowhere."""
        return AdminClient(self._conf("admin", signals or Signals()))

    def _conf(self, kind: ClientKind, signals: Signals) -> dict[str, Any]:
        extras = {"logger": client_log, "error_cb": signals.on_error}
        return self._settings.client(kind) | extras

    def _require_topic(self, client: Client, channel: ChannelSpec, signals: Signals) -> list[int]:
        topic = topic_name(channel)
        deadline = time.monotonic() + HEARD_WITHIN_S
        while not (partitions := self._reach(client, topic, signals)):
            # The channel was made sure of, but not with this node.
            if time.monotonic() > deadline:
                raise UnknownChannel(f"topic {topic!r} does not exist", hint="check the name")
            time.sleep(_ASK_AGAIN_S)
        return partitions

    def _reach(self, client: Client, topic: str | None, signals: Signals) -> list[int]:
        """Ask the cluster something, so that an unreachable one is known now. Raises."""
        deadline = time.monotonic() + self._settings.connect_timeout_s
        started = time.monotonic()
        while True:
            # Never below zero: the client would wait for ever.
            ask_s = max(0.05, min(deadline - time.monotonic(), _ASK_S))
            try:
                if topic is not None:
                    return topic_partitions(client, topic, ask_s)
                client.list_topics(timeout=ask_s)
                return []
            except KafkaException as error:
                client.poll(0)  # serves error_cb, which knows more than 'timed out'
                denied = signals.first(REFUSED_ACCESS)
                if denied is not None:
                    raise KafkaException(denied) from None
                now = time.monotonic()
                down = signals.first({KafkaError._ALL_BROKERS_DOWN})
                if down is not None and now - started > _NOBODY_AFTER_S:
                    raise self._misfit() or error from None
                if now >= deadline:
                    raise

    def _require_share_groups(self) -> None:
        """Raise NotSupported if they are switched off, where that can be known.

        The client's API is answered as if they were on, and only joining one would show it.
        """
        if self._has_share_groups:
            return
        tls = self._settings.tls
        levels = (share_version(each, tls=tls) for each in self._settings.endpoints())
        level = next((level for level in levels if level is not None), None)
        if level == 0:
            raise no_share_groups()
        self._has_share_groups = bool(level)

    def _misfit(self) -> GearshiftError | None:
        """The first mismatch between servers that answer and the profile, if any."""
        tls, sasl = self._settings.tls, self._settings.sasl_mechanism is not None
        found = (misfit(each, tls=tls, sasl=sasl) for each in self._settings.endpoints())
        return next((failure for failure in found if failure is not None), None)
