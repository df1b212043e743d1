"""What a user can set: a profile and a channel's native table."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec

from gearshift.driver import BaseChannelSettings
from gearshift.driver.settings import (
    Endpoint,
    Secret,
    TlsSettings,
    host_port,
    move_credentials,
    parse_host_port,
    parse_url,
    require_range,
)

__all__ = ["CONSUMER_TIMEOUT_S", "SCHEMES", "ChannelSettings", "Settings"]

SCHEMES = {"amqp": 5672, "amqps": 5671}

#: What URLs of pika and other clients have after '?', and the setting to use instead.
PARAMETERS = {
    "heartbeat": "heartbeat_s",
    "connection_timeout": "connect_timeout_s",
    "socket_timeout": "connect_timeout_s",
    "stack_timeout": "connect_timeout_s",
    "blocked_connection_timeout": "connect_timeout_s",
    "client_properties": "connection_name",
    "cacertfile": "tls_ca_file",
    "certfile": "tls_cert_file",
    "keyfile": "tls_key_file",
    "ssl_options": "tls_ca_file, tls_cert_file and tls_key_file",
    "verify": "tls_insecure_skip_verify",
    "server_name_indication": "tls_server_name",
}

#: The broker's own default for ``consumer_timeout`` (https://www.rabbitmq.com/docs/consumers).
CONSUMER_TIMEOUT_S = 1800.0

#: The broker's own limit for a quorum queue.
_MOST_REPLICAS = 32


class Settings(TlsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile with ``backend = "rabbitmq"``."""

    url: str = "amqp://localhost:5672/%2F"
    """``amqp://user:password@host:port/vhost``, ``amqps://`` for TLS; without a path it is the
    virtual host ``/``.

    The password moves into ``password`` at once, so nothing that shows ``url`` shows a secret.
    """

    hosts: list[str] = msgspec.field(default_factory=list)
    """Further nodes of the same cluster, ``host:port``.

    Each bus tries them and the url's in a random order of its own, so that services spread over
    the cluster. Every address of a name is tried; a node that has just failed comes last.
    """

    username: str | None = None
    """The user; without it that of the url, or ``guest``."""

    password: Secret | None = None
    """The user's password; without it that of the url, or ``guest``."""

    heartbeat_s: int = 10
    """How often both sides show that they are there; a frozen broker is noticed after one and a
    half times that.

    The broker drops a client that is silent for two of them: raise it for handlers in C extensions
    that hold the interpreter's lock for long. Broken networks are noticed later then.

    Broker: ``heartbeat``.
    """

    connect_timeout_s: float = 8.0
    """How long one attempt to connect to a node may take."""

    consumer_timeout_s: float = CONSUMER_TIMEOUT_S
    """How long a message may be held unsettled before the broker takes it back.

    RabbitMQ 4.3 and later are told it for queues that Gearshift creates. For other queues, and
    before 4.3, the broker decides: change it here only if it was changed there.

    Broker: ``consumer_timeout``, ``x-consumer-timeout``.
    """

    connection_name: str = "gearshift"
    """The name by which the management UI shows these connections.

    Broker: client property ``connection_name``.
    """

    tls_server_name: str | None = None
    """The name that the broker's certificate must have, if it is not the url's host."""

    def __post_init__(self) -> None:
        move_credentials(self, self._endpoint())
        msgspec.structs.force_setattr(self, "username", self.username or "guest")
        msgspec.structs.force_setattr(self, "password", self.password or Secret("guest"))
        if not 1 <= self.heartbeat_s <= 300:
            raise ValueError(
                f"heartbeat_s: {self.heartbeat_s} is out of range, use 1 to 300 seconds "
                "(0 would hide a dead broker for ever)"
            )
        for field, most in (("connect_timeout_s", 10.0), ("consumer_timeout_s", 10 * 86400.0)):
            value = getattr(self, field)
            if not 0 < value <= most:  # nor is nan
                raise ValueError(
                    f"{field}: {value} is out of range, use seconds over 0 up to {most:g}"
                )
        self.endpoints()
        self.check_tls(self.tls, use="write the url as amqps://")
        if self.tls:
            self.check_tls_context()

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted: the scheme says so."""
        return self._endpoint().scheme == "amqps"

    @property
    def virtual_host(self) -> str:
        """The virtual host, unquoted."""
        return self._endpoint().path or "/"

    def endpoints(self) -> list[tuple[str, int]]:
        """Host and port of every node, the url's first."""
        first = self._endpoint()
        others = [parse_host_port(h, default_port=first.port, field="hosts") for h in self.hosts]
        return [(first.host, first.port), *others]

    def only(self, host: str, port: int) -> Settings:
        """These settings with that node alone."""
        address = host_port(host, port)
        url = f"{self._endpoint().scheme}://{address}/{quote(self.virtual_host, safe='')}"
        return msgspec.structs.replace(self, url=url, hosts=[])

    def _endpoint(self) -> Endpoint:
        return parse_url(
            self.url, schemes=SCHEMES, parameters=PARAMETERS, more_hosts='hosts = ["host:port"]'
        )


class ChannelSettings(BaseChannelSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A channel's ``native.rabbitmq`` table: what is there already, and what ours are made like.

    What is adopted here is checked for existence and neither created nor changed.
    """

    queue: str | None = None
    """An existing queue to consume from, and to send to through the default exchange unless
    ``exchange`` says otherwise. The channel then has one group."""

    exchange: str | None = None
    """An existing exchange to send to. Unless ``queue`` is given too, each group gets a queue of
    ours, bound to it."""

    exchange_type: Literal["fanout", "topic", "direct", "headers"] = "fanout"
    """What ``exchange`` is."""

    routing_key: str | None = None
    """The routing key of every message sent; without it that is the message's key."""

    binding_key: str | None = None
    """What binds the groups' queues to ``exchange``; without it ``routing_key``, or ``#`` on a
    topic exchange."""

    replicas: int | None = None
    """How many replicas each queue or stream has when it is created; without it the broker
    chooses, three for a queue and every node for a stream.

    Broker: ``x-quorum-initial-group-size``, ``x-initial-cluster-size``.
    """

    leader_locator: Literal["balanced", "client-local"] = "balanced"
    """Where a leader begins: "balanced" spreads them over the nodes, "client-local" takes the node
    that the client is connected to.

    Broker: ``x-queue-leader-locator``.
    """

    stream_max_bytes: int | None = None
    """How many bytes a partition of a stream keeps, beside the channel's ``retention_s``.

    Broker: ``x-max-length-bytes``.
    """

    stream_segment_bytes: int | None = None
    """The size of the segments in which old messages go, never part of one; without it 500 MB.

    Broker: ``x-stream-max-segment-size-bytes``.
    """

    @property
    def others_read(self) -> bool:
        return self.exchange is not None

    @property
    def adopts(self) -> str | None:
        named = [
            f"{kind} {name!r}" for kind in ("exchange", "queue") if (name := getattr(self, kind))
        ]
        return " or ".join(named) or None

    def __post_init__(self) -> None:
        for field in ("queue", "exchange", "routing_key", "binding_key"):
            value = getattr(self, field)
            if value is not None and (not value or len(value.encode()) > 255 or "\0" in value):
                raise ValueError(f"{field}: {value[:40]!r} must be 1 to 255 bytes without NUL")
        if self.replicas is not None:
            require_range(self, "replicas", 1, _MOST_REPLICAS)
            if self.queue is not None:
                raise ValueError("replicas: an adopted queue is not changed, leave it out")
        for field in ("stream_max_bytes", "stream_segment_bytes"):
            if (getattr(self, field) or 1) < 1:
                raise ValueError(f"{field}: must be at least 1 byte")
        for field in ("routing_key", "binding_key"):
            if getattr(self, field) is not None and self.exchange is None:
                raise ValueError(f"{field}: only used with exchange, name the exchange too")
        if self.exchange is None and self.exchange_type != "fanout":
            raise ValueError("exchange_type: only used with exchange, name the exchange too")
        if self.queue is not None and self.binding_key is not None:
            raise ValueError("binding_key: an adopted queue is not bound by us, leave it out")
        binds = self.queue or self.routing_key or self.binding_key
        if self.exchange_type == "direct" and not binds:
            raise ValueError(
                "routing_key: a direct exchange needs it, or binding_key, to bind queues"
            )
