"""One Kafka cluster: makes clients, and makes sure that they can reach it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents, QueueDriver
from gearshift.errors import ConfigError, GearshiftError, NotSupported, UnknownChannel
from gearshift.message import Semantics
from gearshift_kafka.admin import KafkaAdmin, topic_partitions
from gearshift_kafka.consumer import GroupReader, KafkaReader, LoneReader
from gearshift_kafka.errors import classify
from gearshift_kafka.names import group_id, topic_name
from gearshift_kafka.producer import KafkaProducer
from gearshift_kafka.settings import KafkaSettings

__all__ = ["KafkaBackend"]

#: The client's own log lines; quiet unless somebody listens.
client_log = logging.getLogger("gearshift.kafka.client")
client_log.addHandler(logging.NullHandler())
client_log.propagate = False

Client = TypeVar("Client", Producer, Consumer, AdminClient)


class KafkaBackend:
    """See Backend. Stream semantics, on topics and consumer groups."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._servers = ", ".join(f"{host}:{port}" for host, port in settings.endpoints())

    def endpoints(self) -> Sequence[tuple[str, int]]:
        return self._settings.endpoints()

    def check(self, channel: ChannelSpec) -> None:
        if channel.semantics is not Semantics.STREAM:
            raise NotSupported("Kafka channels are streams here")
        if channel.native.group is not None and len(channel.groups) > 1:
            raise ConfigError(
                f"native.kafka.group adopts one group, but the channel lists {len(channel.groups)}"
            )

    def admin(self) -> KafkaAdmin:
        client = AdminClient(self._with_log("admin", []))
        self._reach(client, None, [])
        return KafkaAdmin(client)

    def producer(self, channel: ChannelSpec) -> KafkaProducer:
        errors: list[KafkaError] = []
        defaults = {
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": int(self._settings.delivery_timeout_s * 1000),
            "linger.ms": 5,
            "partitioner": "murmur2_random",  # a key lands where Java clients put it
            # Core bounds what is in flight well below these, so produce() finds room.
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
        }
        producer = Producer(defaults | self._with_log("producer", errors))
        self._require_topic(producer, channel, errors)
        return KafkaProducer(producer, topic_name(channel))

    def queue_consumer(self, spec: ConsumerSpec) -> QueueDriver:
        raise NotSupported("Kafka channels are streams here")

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> KafkaReader:
        errors: list[KafkaError] = []
        commit_errors: list[KafkaError] = []
        topic = topic_name(spec.channel)
        consumer = Consumer(self._consumer_settings(spec, errors, commit_errors))
        try:
            partitions = self._require_topic(consumer, spec.channel, errors)
            if spec.ephemeral:
                return LoneReader(consumer, topic, events, spec.start, partitions)
            return GroupReader(consumer, topic, events, spec.start, commit_errors)
        except BaseException:
            consumer.close()
            raise

    def classify(self, error: Exception) -> GearshiftError | None:
        return classify(error, self._servers)

    def close(self) -> None:
        """Nothing is shared between drivers."""

    def _consumer_settings(
        self, spec: ConsumerSpec, errors: list[KafkaError], commit_errors: list[KafkaError]
    ) -> dict[str, Any]:
        # A blank group.id aborts the process, so it is never passed on unchecked.
        group = group_id(spec.channel, spec.group)
        if not group.strip():
            raise ConfigError("the group is blank")

        def on_commit(error: KafkaError | None, _places: object) -> None:
            if error is not None:
                commit_errors.append(error)

        defaults = {
            "group.id": group,
            "client.id": spec.member,
            "group.protocol": self._settings.group_protocol,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",  # what was sent before the first join is not skipped
            "allow.auto.create.topics": False,
            "enable.partition.eof": False,
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": 100,
            "on_commit": on_commit,
        }
        if self._settings.group_protocol == "classic":
            defaults["partition.assignment.strategy"] = "cooperative-sticky"
        return self._with_log("consumer", errors) | defaults

    def _with_log(self, kind: Any, errors: list[KafkaError]) -> dict[str, Any]:
        return self._settings.client(kind) | {"logger": client_log, "error_cb": errors.append}

    def _require_topic(
        self, client: Producer | Consumer, channel: ChannelSpec, errors: list[KafkaError]
    ) -> list[int]:
        topic = topic_name(channel)
        partitions = self._reach(client, topic, errors)
        if not partitions:
            raise UnknownChannel(f"topic {topic!r} does not exist", hint="check the name")
        return partitions

    def _reach(self, client: Any, topic: str | None, errors: list[KafkaError]) -> list[int]:
        """Ask the cluster something, so that an unreachable one is known now. Raises."""
        timeout_s = self._settings.connect_timeout_s
        try:
            if topic is not None:
                return topic_partitions(client, topic, timeout_s)
            client.list_topics(timeout=timeout_s)
            return []
        except KafkaException:
            client.poll(0)  # serves error_cb, which knows more than 'timed out'
            for error in errors:
                if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
                    raise KafkaException(error) from None
            raise
