"""The backend of one profile: makes drivers, refuses what cannot work, names errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gearshift import driver
from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents, Stored
from gearshift.driver.settings import first_remote
from gearshift.errors import ConfigError, GearshiftError, NotSupported
from gearshift.message import Semantics
from gearshift_rabbitmq import errors
from gearshift_rabbitmq.admin import Admin
from gearshift_rabbitmq.confirms import Target
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.nodes import Nodes
from gearshift_rabbitmq.producer import Producer
from gearshift_rabbitmq.queue.consumer import QueueConsumer
from gearshift_rabbitmq.queue.names import DELIVERY_LIMIT, QueueNames, helpers
from gearshift_rabbitmq.queue.own_returns import OwnReturns
from gearshift_rabbitmq.settings import Settings
from gearshift_rabbitmq.stream.consumer import StreamConsumer
from gearshift_rabbitmq.stream.names import StreamNames

__all__ = ["Backend"]

logger = logging.getLogger("gearshift.rabbitmq")

_MAX_NAME_BYTES = 255
_MAX_PREFETCH = 65535


class Backend(driver.Backend):
    """Every driver has a connection of its own, so any thread."""

    def __init__(self, settings: Settings) -> None:
        """No I/O. Warns of what is unsafe."""
        self._settings = settings
        self._nodes = Nodes()
        self._warned: set[str] = set()  # channels whose copies one node may stop
        self._own_returns: dict[str, OwnReturns] = {}  # by member
        if settings.tls_insecure_skip_verify:  # on loopback too: that may be a tunnel
            host = settings.endpoints()[0][0]
            logger.warning("tls_insecure_skip_verify: anybody may answer as %r", host)
        remote = first_remote(settings.endpoints())
        if remote is None:
            return
        if not settings.tls:
            logger.warning("messages and password go to %r in plain text; use amqps://", remote)
        if settings.username == "guest":
            logger.warning("user 'guest' towards %r: everybody knows its password", remote)

    def endpoints(self) -> Sequence[tuple[str, int]]:
        return self._settings.endpoints()

    def check(self, channel: ChannelSpec) -> None:
        self._warn_of_copies(channel)
        if channel.semantics is Semantics.STREAM:
            _check_name(StreamNames.of(channel).members("g"), channel)
            return
        limit = self._settings.consumer_timeout_s
        if channel.max_processing_s is not None and channel.max_processing_s >= limit:
            raise ConfigError(
                f"max_processing_s is {channel.max_processing_s:g}, but RabbitMQ takes back a "
                f"message that is held for {limit:g} s (its consumer_timeout)",
                hint="lower max_processing_s, or raise consumer_timeout_s in the profile, and "
                "before RabbitMQ 4.3 also consumer_timeout in rabbitmq.conf",
                channel=channel.name,
            )
        most = DELIVERY_LIMIT // 20
        if channel.max_attempts > most:
            raise ConfigError(
                f"max_attempts is {channel.max_attempts}, over {most}",
                hint=f"the broker gives up at {DELIVERY_LIMIT} deliveries, and we must act first",
                channel=channel.name,
            )
        self._check_names(channel)

    def admin(self) -> Admin:
        return Admin(lambda: self._connect("admin"), self._settings)

    def producer(self, channel: ChannelSpec) -> Producer:
        user = self._settings.username
        if channel.semantics is Semantics.STREAM:
            stream = StreamNames.of(channel)
            target = Target(stream.encoder(user), stream.missing, by_route=True)
        else:
            queue = QueueNames.of(channel)
            refused = Stored.UNKNOWN if queue.exchange else Stored.NO
            target = Target(queue.encoder(user), queue.missing, refused=refused)
        connection = self._connect(f"producer {channel.name}")  # here, so that its error is raised
        return Producer(lambda: connection, target, name=f"gearshift-rabbitmq-send-{channel.name}")

    def queue_consumer(self, spec: ConsumerSpec) -> QueueConsumer:
        _check_prefetch(spec)
        own_returns = self._own_returns.setdefault(spec.member, OwnReturns(spec.prefetch))
        timeout_s = self._settings.consumer_timeout_s
        return QueueConsumer(self._connect, spec, own_returns, consumer_timeout_s=timeout_s)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> StreamConsumer:
        _check_prefetch(spec)
        return StreamConsumer(self._connect, spec, events)

    def classify(self, error: Exception) -> GearshiftError | None:
        return errors.classify(error, self._settings.endpoints())

    def _connect(self, purpose: str) -> Connection:
        return Connection(self._settings, purpose, self._nodes)

    def _warn_of_copies(self, channel: ChannelSpec) -> None:
        """Once: AMQP does not say how large the cluster is, but the settings name its nodes."""
        replicas = channel.native.replicas if channel.native is not None else None
        if replicas not in (1, 2) or len(self._settings.endpoints()) < 3:
            return
        if channel.name not in self._warned:
            self._warned.add(channel.name)
            logger.warning(
                "channel %r: with replicas = %d, one node that is down stops it%s; use 3",
                channel.name,
                replicas,
                " and its loss loses all" if replicas == 1 else "",
            )

    def _check_names(self, channel: ChannelSpec) -> None:
        queue = QueueNames.of(channel)
        if queue.adopted_queue is not None and len(channel.groups) > 1:
            raise NotSupported(
                f"native.queue adopts one queue, but groups lists {len(channel.groups)}",
                hint="keep one group, or name an exchange so that every group gets a queue",
                channel=channel.name,
            )
        names = [queue.exchange] if queue.exchange_is_ours else []
        if queue.adopted_queue is None:
            names += [helpers(queue.queue(group))[-1] for group in channel.groups]
        for name in names:
            _check_name(name, channel)


def _check_prefetch(spec: ConsumerSpec) -> None:
    if not 1 <= spec.prefetch <= _MAX_PREFETCH:
        raise ConfigError(
            f"prefetch is {spec.prefetch}, RabbitMQ takes 1 to {_MAX_PREFETCH}",
            channel=spec.channel.name,
        )


def _check_name(name: str, channel: ChannelSpec) -> None:
    if name.lower().startswith("amq."):
        raise ConfigError(
            f"channel name {channel.name!r}: RabbitMQ keeps names in 'amq.' for itself",
            hint="choose another name",
        )
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ConfigError(
            f"channel and group name together are too long: {name[:60]!r}... has "
            f"{len(name.encode())} bytes, RabbitMQ takes {_MAX_NAME_BYTES}",
            hint="shorten the channel's or the group's name",
        )
