"""librdkafka settings that a profile passes on as they are: which of them, and why not others."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient

__all__ = ["SECRET_SETTINGS", "ClientKind", "NativeSettings", "Value"]

Value: TypeAlias = str | int | float | bool
#: A consumer is a member of a user's group; a reader is in none, or in a group that is ours.
ClientKind: TypeAlias = Literal["producer", "consumer", "reader", "share", "admin"]

#: Settings whose values are secrets: only the masked table ``secrets`` takes them.
SECRET_SETTINGS = frozenset((
    "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
))  # fmt: skip

_PROMISED = "a send that returned is stored on all in-sync replicas, once and in order"
_POSITIONS = "positions are committed up to the settled prefix only"
_FIELD = "use {} of the profile"

#: What Gearshift promises depends on these, so they are not for configuration.
_OURS = {
    "bootstrap.servers": _FIELD.format("bootstrap_servers"),
    "metadata.broker.list": _FIELD.format("bootstrap_servers"),
    "security.protocol": _FIELD.format("tls and sasl_mechanism"),
    "sasl.mechanism": _FIELD.format("sasl_mechanism"),
    "sasl.mechanisms": _FIELD.format("sasl_mechanism"),
    "sasl.username": _FIELD.format("sasl_username"),
    "sasl.password": _FIELD.format("sasl_password, which is masked"),
    "enable.ssl.certificate.verification": _FIELD.format("tls_insecure_skip_verify"),
    "client.id": _FIELD.format("client_id"),
    "group.id": "the consumer's group decides it; a channel adopts one with native.kafka.group",
    "group.protocol": _FIELD.format("group_protocol"),
    "group.instance.id": _FIELD.format("group_instance_id"),
    "partition.assignment.strategy": "assignments are incremental (cooperative-sticky)",
    "share.acknowledgement.mode": "every message is acknowledged explicitly",
    "max.poll.records": "use prefetch of the channel",
    "enable.auto.commit": _POSITIONS,
    "auto.commit.enable": _POSITIONS,
    "auto.commit.interval.ms": _POSITIONS,
    "enable.auto.offset.store": _POSITIONS,
    "auto.offset.reset": "use start of the consumer",
    "statistics.interval.ms": "health is measured by the client's statistics",
    "enable.partition.eof": "positions are committed behind the markers of transactions",
    "allow.auto.create.topics": "a misspelt name would become a topic",
    "acks": _PROMISED,
    "request.required.acks": _PROMISED,
    "enable.idempotence": _PROMISED,
    "enable.gapless.guarantee": _PROMISED,
    "retries": _PROMISED,
    "message.send.max.retries": _PROMISED,
    "transactional.id": "transactions are not used here",
    "message.timeout.ms": _FIELD.format("delivery_timeout_s"),
    "delivery.timeout.ms": _FIELD.format("delivery_timeout_s"),
    "linger.ms": _FIELD.format("linger_s"),
    "queue.buffering.max.ms": _FIELD.format("linger_s"),
    "compression.type": _FIELD.format("compression"),
    "compression.codec": _FIELD.format("compression"),
    "plugin.library.paths": "loading native code from configuration is refused",
    "ssl.engine.location": "loading native code from configuration is refused",
    "ssl.providers": "loading native code from configuration is refused",
    "sasl.kerberos.kinit.cmd": "running commands from configuration is refused",
    "delivery.report.only.error": "every message gets its report",
    "log.queue": "the client's log goes to the logger gearshift.kafka.client",
}  # fmt: skip

#: Settings of brokers and topics that people put on clients, where they do nothing.
_BROKER_SIDE = frozenset((
    "auto.create.topics.enable", "cleanup.policy", "default.replication.factor",
    "delete.retention.ms", "group.consumer.session.timeout.ms", "group.initial.rebalance.delay.ms",
    "group.share.record.lock.duration.ms", "log.cleanup.policy", "log.retention.bytes",
    "log.retention.hours", "log.retention.minutes", "log.retention.ms", "log.segment.bytes",
    "max.message.bytes", "message.timestamp.type", "min.insync.replicas", "num.partitions",
    "offsets.retention.minutes", "offsets.topic.replication.factor", "replication.factor",
    "retention.bytes", "retention.ms", "segment.bytes", "segment.ms", "share.auto.offset.reset",
    "share.delivery.count.limit", "share.isolation.level", "share.record.lock.duration.ms",
    "unclean.leader.election.enable",
))  # fmt: skip

#: For "did you mean"; what is valid, the installed librdkafka itself says.
_KNOWN = frozenset((
    "api.version.request.timeout.ms", "batch.num.messages", "batch.size", "broker.address.family",
    "broker.address.ttl", "check.crcs", "client.dns.lookup", "client.rack", "compression.level",
    "connections.max.idle.ms", "debug", "enable.metrics.push", "enable.sparse.connections",
    "fetch.error.backoff.ms", "fetch.max.bytes", "fetch.message.max.bytes", "fetch.min.bytes",
    "fetch.queue.backoff.ms", "fetch.wait.max.ms", "group.remote.assignor",
    "heartbeat.interval.ms", "isolation.level", "log.connection.close", "log_level",
    "max.in.flight.requests.per.connection", "max.partition.fetch.bytes", "max.poll.interval.ms",
    "message.copy.max.bytes", "message.max.bytes", "metadata.max.age.ms",
    "metadata.recovery.strategy", "partitioner", "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes", "queue.buffering.max.messages", "queued.max.messages.kbytes",
    "queued.min.messages", "receive.message.max.bytes", "reconnect.backoff.max.ms",
    "reconnect.backoff.ms", "request.timeout.ms", "retry.backoff.max.ms", "retry.backoff.ms",
    "session.timeout.ms", "socket.connection.setup.timeout.ms", "socket.keepalive.enable",
    "socket.nagle.disable", "socket.receive.buffer.bytes", "socket.send.buffer.bytes",
    "socket.timeout.ms", "ssl.ca.location", "ssl.certificate.location", "ssl.cipher.suites",
    "ssl.crl.location", "ssl.endpoint.identification.algorithm", "ssl.key.location",
    "sticky.partitioning.linger.ms",
    "topic.metadata.propagation.max.ms", "topic.metadata.refresh.interval.ms",
))  # fmt: skip

#: How long a member may be silent, which each group protocol limits in another way.
_OF_MEMBERS = {"max.poll.interval.ms", "session.timeout.ms", "heartbeat.interval.ms"}

#: Core keeps at most 10,000 messages and 64 MiB in flight; the client's queue must hold more.
_LEAST_QUEUE = {"queue.buffering.max.messages": 20_000, "queue.buffering.max.kbytes": 131_072}


class NativeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """librdkafka settings that are passed on as they are, for each kind of client."""

    producer: dict[str, Value] = msgspec.field(default_factory=dict)
    """librdkafka settings for producers, passed on as they are."""

    consumer: dict[str, Value] = msgspec.field(default_factory=dict)
    """The same for consumers of streams."""

    share: dict[str, Value] = msgspec.field(default_factory=dict)
    """The same for consumers of queues."""

    admin: dict[str, Value] = msgspec.field(default_factory=dict)
    """The same for what declares and describes topics."""

    def of(self, kind: ClientKind) -> dict[str, Value]:
        """Settings for one kind of client: a reader takes a consumer's, except
        those for the life of a member."""
        if kind == "reader":
            return {key: self.consumer[key] for key in self.consumer.keys() - _OF_MEMBERS}
        settings: dict[str, Value] = getattr(self, kind)
        return settings

    def __post_init__(self) -> None:
        kinds: tuple[ClientKind, ...] = ("producer", "consumer", "share", "admin")
        for kind in kinds:
            for key, value in getattr(self, kind).items():
                reason = _objection(key, value) or _refusal(kind, key, value)
                if reason is not None:
                    raise ValueError(f"{kind}: {key!r} {reason}")


def _objection(key: str, value: Value) -> str | None:
    """Why we refuse a setting that librdkafka would take."""
    if key in _OURS:
        return f"is not yours to set: {_OURS[key]}"
    if key in SECRET_SETTINGS:
        return "is a secret: put it into the table secrets of the profile, which is masked"
    if key in _BROKER_SIDE:
        return "is a setting of the broker or topic, not of a client"
    if key.endswith("_cb") or key in ("on_commit", "on_delivery", "logger"):
        return "is a callback, which configuration cannot give"
    if str(value).lower().startswith("file:"):
        return "with a file: URL is refused"
    if key.startswith("test.mock.") and value:
        return "replaces the brokers by a mock"
    if key in ("max.in.flight", "max.in.flight.requests.per.connection") and value not in range(6):
        return "over 5 contradicts idempotence"
    if key in _LEAST_QUEUE and not _is_at_least(value, _LEAST_QUEUE[key]):
        return f"must be at least {_LEAST_QUEUE[key]}: Gearshift bounds what is in flight itself"
    return None


def _is_at_least(value: Value, least: int) -> bool:
    try:
        return float(value) >= least
    except ValueError:
        return True  # librdkafka has better words for it


def _refusal(kind: ClientKind, key: str, value: Value) -> str | None:
    """Why librdkafka refuses a setting. One of a consumer may be for either group protocol."""
    refusal = _refusal_of_client(kind, {key: value}, key)
    if refusal is None or kind != "consumer":
        return refusal
    newer = _refusal_of_client(kind, {key: value, "group.protocol": "consumer"}, key)
    return refusal if newer is not None else None


def _refusal_of_client(kind: ClientKind, settings: Mapping[str, Value], key: str) -> str | None:
    """Ask librdkafka itself, with a client without servers, which never connects."""
    value = settings[key]
    remarks = logging.Logger("gearshift.kafka.check")
    collected = _Collector()
    remarks.addHandler(collected)
    text = str(value).lower() if isinstance(value, bool) else value
    try:
        client = _make(kind, {**settings, key: text, "logger": remarks})
        if not isinstance(client, ShareConsumer):
            client.poll(0)  # hands the log lines over
        if isinstance(client, Consumer | ShareConsumer):
            client.close()
    except KafkaException as error:
        return _translate(key, value, error.args[0].str())
    except (TypeError, ValueError, AttributeError) as error:
        return f"is {value!r}, refused by the client: {error}"
    if any("property and will be ignored by this" in line for line in collected.lines):
        other = "consumer" if kind == "producer" else "producer"
        return f"is a setting of a {other}; it would be ignored here"
    return None


class _Collector(logging.Handler):
    """Keeps log lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _make(
    kind: ClientKind, conf: dict[str, object]
) -> Producer | Consumer | ShareConsumer | AdminClient:
    if kind == "producer":
        return Producer(conf)
    if kind == "consumer":
        return Consumer(conf | {"group.id": "check"})
    if kind == "share":
        return ShareConsumer(conf | {"group.id": "check"})
    return AdminClient(conf)  # type: ignore[arg-type]


def _translate(key: str, value: Value, reason: str) -> str:
    if "No such configuration" in reason:
        close = difflib.get_close_matches(key, _KNOWN | _OURS.keys() | SECRET_SETTINGS, n=1)
        return "is not a setting of librdkafka" + (f"; did you mean {close[0]!r}?" if close else "")
    if "Invalid value" in reason:
        return f"is {value!r}, which librdkafka refuses"
    return f"is refused: {reason}"
