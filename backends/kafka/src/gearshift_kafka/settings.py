"""A Kafka profile and a channel's native table, checked and turned into librdkafka's settings."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from gearshift.endpoints import first_remote, parse_host_port
from gearshift.secret import Secret

__all__ = ["KafkaChannel", "KafkaSettings", "NativeSettings"]

log = logging.getLogger("gearshift.kafka")

Value = str | int | float | bool

#: What Gearshift promises depends on these, so they are not for configuration.
_OURS = {
    "bootstrap.servers": "set bootstrap_servers of the profile",
    "group.id": "the consumer's group decides it; adopt one with native.kafka.group of a channel",
    "enable.auto.commit": "positions are committed up to the settled prefix only",
    "enable.auto.offset.store": "positions are committed up to the settled prefix only",
    "auto.offset.reset": "use start of the consumer",
    "allow.auto.create.topics": "a misspelt name would become a topic",
    "acks": "a send that returned is stored on all in-sync replicas",
    "request.required.acks": "a send that returned is stored on all in-sync replicas",
    "enable.idempotence": "order and single storage depend on it",
    "enable.gapless.guarantee": "not used here",
    "message.timeout.ms": "use delivery_timeout_s of the profile",
    "delivery.timeout.ms": "use delivery_timeout_s of the profile",
    "sasl.password": "use sasl_password of the profile, which is masked",
    "sasl.username": "use sasl_username of the profile",
    "ssl.key.password": "keep it out of plain settings: use an unencrypted key file",
    "ssl.keystore.password": "keep it out of plain settings: use PEM files",
    "sasl.oauthbearer.client.secret": "keep secrets out of plain settings",
    "sasl.oauthbearer.config": "keep secrets out of plain settings",
    "plugin.library.paths": "loading native code from configuration is refused",
    "transactional.id": "transactions are not used here",
}

#: Settings of brokers and topics that people put on clients, where they do nothing.
_BROKER_SIDE = frozenset((
    "num.partitions", "default.replication.factor", "min.insync.replicas", "log.retention.ms",
    "log.retention.hours", "log.retention.bytes", "retention.ms", "retention.bytes",
    "cleanup.policy", "auto.create.topics.enable", "max.message.bytes",
    "unclean.leader.election.enable", "group.share.record.lock.duration.ms",
    "offsets.topic.replication.factor",
))  # fmt: skip


class NativeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """librdkafka settings that are passed on as they are, per kind of client."""

    producer: dict[str, Value] = msgspec.field(default_factory=dict)
    consumer: dict[str, Value] = msgspec.field(default_factory=dict)
    admin: dict[str, Value] = msgspec.field(default_factory=dict)


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One Kafka cluster and how to reach it. Times are seconds.

    ``delivery_timeout_s`` is how long the client itself tries to get a message stored.
    ``group_protocol`` "consumer" is KIP-848 (Kafka 4.0 and newer), "classic" the older one.
    """

    bootstrap_servers: tuple[str, ...]
    client_id: str = "gearshift"
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_insecure_skip_verify: bool = False
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    group_protocol: Literal["consumer", "classic"] = "consumer"
    delivery_timeout_s: float = 60.0
    connect_timeout_s: float = 8.0
    native: NativeSettings = NativeSettings()

    def __post_init__(self) -> None:
        self.endpoints()
        for name in ("delivery_timeout_s", "connect_timeout_s"):
            value = getattr(self, name)
            if not math.isfinite(value) or not 0.1 <= value <= 3600:
                raise ValueError(f"{name}: {value} is not from 0.1 to 3600 seconds")
        if not self.client_id.strip():
            raise ValueError("client_id: is blank; leave it out for 'gearshift'")
        self._check_security()
        for kind in ("producer", "consumer", "admin"):
            _check_native(f"native.{kind}", getattr(self.native, kind))

    def endpoints(self) -> list[tuple[str, int]]:
        """Host and port of each bootstrap server. Raises ValueError."""
        if not self.bootstrap_servers:
            raise ValueError('bootstrap_servers: is empty; write ["host:9092"]')
        return [_endpoint(address) for address in self.bootstrap_servers]

    def client(self, kind: Literal["producer", "consumer", "admin"]) -> dict[str, Any]:
        """librdkafka's settings for one kind of client, secrets in clear: never log them."""
        common: dict[str, Any] = {
            "bootstrap.servers": ",".join(f"{host}:{port}" for host, port in self.endpoints()),
            "client.id": self.client_id,
            "security.protocol": self._protocol(),
            # A broker that comes back is found within a second, not within ten.
            "reconnect.backoff.max.ms": 1000,
            "socket.connection.setup.timeout.ms": 5000,
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        if self.tls:
            common["enable.ssl.certificate.verification"] = not self.tls_insecure_skip_verify
            if self.tls_ca_file is not None:
                common["ssl.ca.location"] = str(self.tls_ca_file)
        if self.sasl_mechanism is not None:
            common["sasl.mechanism"] = self.sasl_mechanism
            common["sasl.username"] = self.sasl_username
            common["sasl.password"] = self.sasl_password.reveal() if self.sasl_password else ""
        return common | dict(getattr(self.native, kind))

    def _protocol(self) -> str:
        return ("SASL_" if self.sasl_mechanism else "") + ("SSL" if self.tls else "PLAINTEXT")

    def _check_security(self) -> None:
        if self.tls_ca_file is not None and not self.tls:
            raise ValueError("tls_ca_file: has no effect without tls = true")
        if self.tls_insecure_skip_verify and not self.tls:
            raise ValueError("tls_insecure_skip_verify: has no effect without tls = true")
        if self.tls_ca_file is not None:
            try:
                self.tls_ca_file.read_bytes()
            except OSError as error:
                raise ValueError(f"tls_ca_file: cannot be read: {error.strerror}") from None
        given = self.sasl_username is not None or self.sasl_password is not None
        if given and self.sasl_mechanism is None:
            raise ValueError(
                "sasl_mechanism: is missing though there are credentials; "
                "use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
            )
        if self.sasl_mechanism and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_username: SASL needs sasl_username and sasl_password")
        remote = first_remote(self.endpoints())
        if remote and not self.tls:
            log.warning("traffic with %s is plain text; set tls = true", remote)


class KafkaChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel's native settings: adopt a ``topic`` or ``group``, or shape the topic we create.

    An adopted topic is used as it is, neither created nor changed. ``config`` are topic settings.
    """

    topic: str | None = None
    group: str | None = None
    replication_factor: int = -1
    config: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("topic", "group"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ValueError(f"{name}: is blank")
        if self.topic and (self.config or self.replication_factor != -1):
            raise ValueError(
                "topic: an adopted topic is not changed; drop config and replication_factor"
            )


def _endpoint(address: str) -> tuple[str, int]:
    if "://" in address:
        raise ValueError(
            f"bootstrap_servers: {address[:60]!r} is a URL; write host:port, without a scheme"
        )
    return parse_host_port(address.strip(), default_port=None, field="bootstrap_servers")


def _check_native(field: str, settings: Mapping[str, Value]) -> None:
    for key, value in settings.items():
        if key in _OURS:
            raise ValueError(f"{field}: {key!r} is not yours to set: {_OURS[key]}")
        if key in _BROKER_SIDE:
            raise ValueError(
                f"{field}: {key!r} is a setting of the broker or topic, not of a client"
            )
        if "oauthbearer" in key and "file:" in str(value):
            raise ValueError(f"{field}: {key!r} with a file:// URL is refused")
        if key in ("max.in.flight", "max.in.flight.requests.per.connection") and int(value) > 5:
            raise ValueError(f"{field}: {key!r} over 5 contradicts idempotence")
    if settings:
        _try_with_client(field, settings)


def _try_with_client(field: str, settings: Mapping[str, Value]) -> None:
    """librdkafka itself knows its settings; a client without servers never connects."""
    for key, value in settings.items():
        try:
            AdminClient({key: value, "log_level": 0})
        except KafkaException as error:
            reason = error.args[0].str() if error.args else "refused by librdkafka"
            close = difflib.get_close_matches(key, _COMMON, n=1)
            hint = f"; did you mean {close[0]!r}?" if close and "No such" in reason else ""
            raise ValueError(f"{field}: {key!r}: {reason}{hint}") from None


_COMMON = (
    "linger.ms", "batch.size", "batch.num.messages", "compression.type", "compression.level",
    "queue.buffering.max.messages", "queue.buffering.max.kbytes", "socket.timeout.ms",
    "fetch.min.bytes", "fetch.wait.max.ms", "fetch.max.bytes", "max.partition.fetch.bytes",
    "queued.min.messages", "queued.max.messages.kbytes", "session.timeout.ms",
    "heartbeat.interval.ms", "max.poll.interval.ms", "isolation.level", "client.rack",
    "group.instance.id", "partitioner", "message.max.bytes", "statistics.interval.ms", "debug",
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "log_level",
)  # fmt: skip
