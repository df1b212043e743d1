"""A Kafka profile and a channel's native table, checked and turned into librdkafka's settings."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

import msgspec

from gearshift.driver import BaseChannelSettings
from gearshift.driver.settings import (
    Secret,
    TlsSettings,
    first_remote,
    host_port,
    parse_host_port,
    require_range,
)
from gearshift_kafka.native import SECRET_SETTINGS, ClientKind, NativeSettings

__all__ = ["ChannelSettings", "NativeSettings", "Settings"]

log = logging.getLogger("gearshift.kafka")

#: For every client. A broker that comes back is found within a second or two and a frozen one is
#: given up after ten, not after the client's 10 and 60 s; a message waits for neither.
_COMMON = {
    "reconnect.backoff.max.ms": 1000,
    "socket.connection.setup.timeout.ms": 5000,
    "socket.timeout.ms": 10_000,
    "socket.keepalive.enable": True,
    "topic.metadata.refresh.interval.ms": 30_000,
    "allow.auto.create.topics": False,
    "enable.metrics.push": False,
}

_CONSUMER = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Where reading begins is decided by us, with absolute offsets. This is for positions that the
    # broker has no record for, because retention has overtaken them: the reader is told.
    "auto.offset.reset": "error",
    # Memory: what is fetched ahead, for all partitions together.
    "queued.max.messages.kbytes": 16_384,
    "fetch.max.bytes": 16_777_216,
    "fetch.queue.backoff.ms": 20,
    "fetch.wait.max.ms": 100,
}

_SHARE = {
    "fetch.wait.max.ms": 100,
    "fetch.max.bytes": 16_777_216,
    # Polled by a thread of ours; what is too slow loses its lock long before.
    "max.poll.interval.ms": 86_400_000,
    # The client says at every start that share consumers are a preview, and tells of a deleted
    # topic some thousand times a second.
    "log_level": 3,
}

#: The share consumer refuses it, and creates no topics anyway.
_NOT_FOR_SHARE = "allow.auto.create.topics"


class Settings(TlsSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One Kafka cluster and how to reach it. Times are seconds."""

    bootstrap_servers: tuple[str, ...]
    """``host:port`` of the cluster's brokers: list all, as any may be down at the start.

    Broker: ``bootstrap.servers``.
    """

    client_id: str = "gearshift"
    """The name by which the broker's logs and quotas know this client.

    Broker: ``client.id``.
    """

    tls: bool = False
    """Encrypt connections.

    Broker: ``security.protocol``.
    """

    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """How this client authenticates; without it, not at all.

    Broker: ``sasl.mechanism``.
    """

    sasl_username: str | None = None
    """The user.

    Broker: ``sasl.username``.
    """

    sasl_password: Secret | None = None
    """The user's password.

    Broker: ``sasl.password``.
    """

    secrets: dict[str, Secret] = msgspec.field(default_factory=dict)
    """librdkafka settings whose values are secret, for every kind of client.

    Broker: as they are called.
    """

    group_protocol: Literal["auto", "consumer", "classic"] = "auto"
    """How a group shares partitions: "consumer" is KIP-848 (Kafka 4.0 and newer), "classic" the
    older protocol; "auto" uses the older one where a broker refuses the newer.

    Broker: ``group.protocol``.
    """

    group_instance_id: str | None = None
    """Make the consumers of this process static members; another one in every process.

    Broker: ``group.instance.id``.
    """

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """How batches of messages are compressed.

    Broker: ``compression.type``.
    """

    linger_s: float = 0.005
    """How long a message may wait for others of its batch; one that a thread waits for is sent at
    once.

    Broker: ``linger.ms``.
    """

    delivery_timeout_s: float = 60.0
    """How long the client itself tries to get a message stored.

    It ends in OutcomeUnknown, so keep it above the deadlines of ``send``.

    Broker: ``message.timeout.ms``.
    """

    connect_timeout_s: float = 8.0
    """How long opening waits for the cluster's first answer."""

    native: NativeSettings = NativeSettings()
    """librdkafka settings that are passed on as they are and are not secret."""

    def __post_init__(self) -> None:
        self.endpoints()
        require_range(self, "delivery_timeout_s", 1, 3600)
        require_range(self, "connect_timeout_s", 0.1, 60)
        require_range(self, "linger_s", 0, 10)
        for name in ("client_id", "group_instance_id"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ValueError(f"{name}: is blank; leave it out")
        self.check_tls(self.tls, use="set tls = true")
        if self.tls_cert_file and not self.tls_key_file:
            raise ValueError("tls_cert_file: needs tls_key_file beside it")
        self._check_sasl()
        for key in self.secrets:
            if key not in SECRET_SETTINGS:
                choices = ", ".join(sorted(SECRET_SETTINGS))
                raise ValueError(f"secrets: {key!r} is not one of {choices}")

    def endpoints(self) -> list[tuple[str, int]]:
        """Host and port of each bootstrap server. Raises ValueError."""
        if not self.bootstrap_servers:
            raise ValueError('bootstrap_servers: is empty; write ["host:9092"]')
        return [_endpoint(address) for address in self.bootstrap_servers]

    def client(self, kind: ClientKind) -> dict[str, Any]:
        """librdkafka's settings for one kind of client, secrets in clear: never log them."""
        conf: dict[str, Any] = dict(_COMMON)
        if kind == "producer":
            conf |= self._producer()
        elif kind in ("consumer", "reader"):
            conf |= _CONSUMER
        elif kind == "share":
            conf |= _SHARE
            del conf[_NOT_FOR_SHARE]
        conf |= self.native.of(kind)
        conf |= {key: secret.reveal() for key, secret in self.secrets.items()}
        conf["bootstrap.servers"] = ",".join(host_port(*endpoint) for endpoint in self.endpoints())
        conf["client.id"] = self.client_id
        return conf | self._security()

    def refresh_s(self, kind: ClientKind) -> float:
        """How often a client looks for changed topics. Seconds; infinite where that is off."""
        milliseconds = float(self.client(kind)["topic.metadata.refresh.interval.ms"])
        return milliseconds / 1000 if milliseconds > 0 else math.inf

    def _producer(self) -> dict[str, Any]:
        return {
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": int(self.delivery_timeout_s * 1000),
            "linger.ms": self.linger_s * 1000,
            "compression.type": self.compression,
            "partitioner": "murmur2_random",  # a key lands where Java clients put it
            # A topic is checked before it is used, so that one which is missing later is gone.
            "topic.metadata.propagation.max.ms": 3000,
            # The topic decides what is too large: its limit may be above the client's usual one.
            # What brokers take of a request, by default, bounds it all the same.
            "message.max.bytes": 100_000_000,
            # Core bounds what is in flight well below these, so produce() finds room.
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
        }

    def _security(self) -> dict[str, Any]:
        protocol = ("SASL_" if self.sasl_mechanism else "") + ("SSL" if self.tls else "PLAINTEXT")
        conf: dict[str, Any] = {"security.protocol": protocol}
        if self.tls:
            conf["enable.ssl.certificate.verification"] = not self.tls_insecure_skip_verify
            files = {
                "ssl.ca.location": self.tls_ca_file,
                "ssl.certificate.location": self.tls_cert_file,
                "ssl.key.location": self.tls_key_file,
            }
            conf |= {key: str(path) for key, path in files.items() if path is not None}
        if self.sasl_mechanism is not None:
            conf["sasl.mechanism"] = self.sasl_mechanism
        if self.sasl_username is not None and self.sasl_password is not None:
            conf["sasl.username"] = self.sasl_username
            conf["sasl.password"] = self.sasl_password.reveal()
        return conf

    def _check_sasl(self) -> None:
        given = self.sasl_username is not None or self.sasl_password is not None
        if given and self.sasl_mechanism is None:
            raise ValueError(
                "sasl_mechanism: is missing though there are credentials; "
                "use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
            )
        needs = self.sasl_mechanism not in (None, "OAUTHBEARER")
        if needs and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_username: SASL needs sasl_username and sasl_password")
        remote = first_remote(self.endpoints())
        if remote is None or self.tls:
            return
        if self.sasl_mechanism == "PLAIN":
            log.warning("the password goes to %s in plain text; set tls = true", remote)
        else:
            log.warning("traffic with %s is plain text; set tls = true", remote)


class ChannelSettings(BaseChannelSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel's ``native.kafka`` table: what is there already, and what ours are made like.

    What is adopted here is used as it is, neither created nor changed.
    """

    topic: str | None = None
    """An existing topic to use instead of one that Gearshift creates."""

    group: str | None = None
    """A consumer group id to use instead of Gearshift's, for the channel's only or default group.

    Broker: ``group.id``.
    """

    replication_factor: int = -1
    """Copies of each partition when a topic is made; without it (-1) three, or one for each broker
    of fewer.

    Of three or more, two have to confirm, unless ``config`` or the broker asks for more. A queue's
    helper topics get as many.

    Broker: ``replication.factor``, ``min.insync.replicas``.
    """

    partitions: int = 1
    """Partitions of a queue's topic: they spread load over brokers and say nothing of how many may
    work. A stream takes the channel's ``partitions``."""

    config: dict[str, str] = msgspec.field(default_factory=dict)
    """Topic settings, such as ``{"cleanup.policy" = "compact"}``.

    Broker: as they are called.
    """

    @property
    def adopts(self) -> str | None:
        """The topic that is not made by us."""
        return f"topic {self.topic!r}" if self.topic else None

    def __post_init__(self) -> None:
        for name in ("topic", "group"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ValueError(f"{name}: is blank")
        if self.replication_factor != -1:  # three copies
            require_range(self, "replication_factor", 1, 32_767)
        require_range(self, "partitions", 1, 10_000)
        if self.topic and (self.config or self.replication_factor != -1 or self.partitions != 1):
            raise ValueError(
                "topic: an adopted topic is not changed; "
                "drop config, partitions and replication_factor"
            )


def _endpoint(address: str) -> tuple[str, int]:
    if "://" in address:
        raise ValueError(
            f"bootstrap_servers: {_without_credentials(address)!r} is a URL; "
            "write host:port, without a scheme"
        )
    if "@" in address:
        raise ValueError(
            "bootstrap_servers: has no place for credentials; use sasl_username and sasl_password"
        )
    return parse_host_port(address.strip(), default_port=None, field="bootstrap_servers")


def _without_credentials(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"[:60]
