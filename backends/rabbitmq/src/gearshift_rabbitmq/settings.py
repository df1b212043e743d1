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
    move_credentials,
    parse_host_port,
    parse_url,
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
    """A profile with ``backend = "rabbitmq"``.

    ``url`` is ``amqp://user:password@host:port/vhost`` (``amqps://`` for TLS); a missing or empty
    path is the virtual host ``/``. Its password moves into ``password`` at once, so nothing that
    shows ``url`` shows a secret. ``hosts`` are further nodes of the same cluster, ``host:port``.
    Each bus tries them and the url's in an order of its own, by chance, so that services spread
    over the cluster. Every address of a name is tried; a node that has just failed comes last.

    ``heartbeat_s`` bounds how long a frozen broker goes unnoticed (one and a half times that)
    and how long this process may stand still, in a C extension that holds the interpreter's lock,
    say: the broker drops a client that is silent for two of them. Raise it for such handlers; what
    that costs is the time until a frozen broker, or a network that swallows packets, is noticed.
    ``consumer_timeout_s`` is how long a message may be held unsettled. RabbitMQ 4.3 and later are
    given it for the queues that we make. Of others, and before 4.3, it is what the *broker* has
    for ``consumer_timeout``; change it here only if it was changed there.
    """

    url: str = "amqp://localhost:5672/%2F"
    hosts: list[str] = msgspec.field(default_factory=list)
    username: str | None = None
    password: Secret | None = None
    heartbeat_s: int = 10
    connect_timeout_s: float = 8.0
    consumer_timeout_s: float = CONSUMER_TIMEOUT_S
    connection_name: str = "gearshift"
    tls_server_name: str | None = None

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
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        url = f"{self._endpoint().scheme}://{address}/{quote(self.virtual_host, safe='')}"
        return msgspec.structs.replace(self, url=url, hosts=[])

    def _endpoint(self) -> Endpoint:
        return parse_url(
            self.url, schemes=SCHEMES, parameters=PARAMETERS, more_hosts='hosts = ["host:port"]'
        )


class ChannelSettings(BaseChannelSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A channel's ``native.rabbitmq`` table: names of existing objects to use as they are.

    ``queue``: consume from this queue, and send to it through the default exchange unless
    ``exchange`` says otherwise; the channel then has one group. ``exchange``: send to this
    exchange; unless ``queue`` is given too, groups get queues of ours bound to it. What is named
    here is checked for existence and neither created nor changed.

    ``routing_key`` goes on every message sent; without it a message's key is the routing key.
    ``binding_key`` binds our queues to ``exchange``; without it that is ``routing_key``, or ``#``
    on a topic exchange. ``exchange_type`` is what ``exchange`` is.

    ``replicas`` is on how many nodes of a cluster each queue or stream of ours has a copy when it
    is made: without it the broker chooses, three for a queue and every node for a stream.
    ``leader_locator`` says on which of them its leader begins: "balanced" spreads leaders over the
    nodes, "client-local" takes the one that the client is connected to. Neither changes what is
    there already.

    ``stream_max_bytes`` bounds a partition of a stream beside the channel's ``retention_s``; old
    messages go in segments of ``stream_segment_bytes`` (500 MB unless set), never part of one.
    """

    queue: str | None = None
    exchange: str | None = None
    exchange_type: Literal["fanout", "topic", "direct", "headers"] = "fanout"
    routing_key: str | None = None
    binding_key: str | None = None
    replicas: int | None = None
    leader_locator: Literal["balanced", "client-local"] = "balanced"
    stream_max_bytes: int | None = None
    stream_segment_bytes: int | None = None

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
        if self.replicas is not None and not 1 <= self.replicas <= _MOST_REPLICAS:
            raise ValueError(f"replicas: {self.replicas} is not from 1 to {_MOST_REPLICAS}")
        if self.replicas is not None and self.queue is not None:
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
