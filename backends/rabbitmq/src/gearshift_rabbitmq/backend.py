"""The backend of one profile: makes drivers, refuses what cannot work, names errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents, Stored
from gearshift.driver.settings import first_remote
from gearshift.errors import ConfigError, GearshiftError, NotSupported
from gearshift.message import Semantics
from gearshift_rabbitmq import errors
from gearshift_rabbitmq.admin import Admin
from gearshift_rabbitmq.confirms import Target
from gearshift_rabbitmq.connection import Link
from gearshift_rabbitmq.consumer import Consumer
from gearshift_rabbitmq.delay import delay_queues
from gearshift_rabbitmq.nodes import Nodes
from gearshift_rabbitmq.producer import Producer, encoder
from gearshift_rabbitmq.settings import RabbitSettings
from gearshift_rabbitmq.stream import layout as stream
from gearshift_rabbitmq.stream.consumer import StreamConsumer
from gearshift_rabbitmq.stream.layout import Layout
from gearshift_rabbitmq.topology import DELIVERY_LIMIT, Topology

__all__ = ["RabbitBackend"]

logger = logging.getLogger("gearshift.rabbitmq")

_MAX_NAME_BYTES = 255
_MAX_PREFETCH = 65535


class RabbitBackend:
    """A Backend. Every driver has a connection of its own, so any thread."""

    def __init__(self, settings: RabbitSettings) -> None:
        """No I/O. Warns of what is unsafe."""
        self._settings = settings
        self._nodes = Nodes()
        self._warned: set[str] = set()  # channels whose copies one node may stop
        self._survivors: dict[str, set[tuple[str | None, int]]] = {}  # by member
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
        """See Backend."""
        return self._settings.endpoints()

    def check(self, channel: ChannelSpec) -> None:
        """See Backend. Raises ConfigError or NotSupported."""
        self._warn_of_copies(channel)
        if channel.semantics is Semantics.STREAM:
            _check_name(Layout.of(channel).members("g"), channel)
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
        """See Backend. Raises pika's error."""
        return Admin(lambda: self._link("admin"), self._settings)

    def producer(self, channel: ChannelSpec) -> Producer:
        """See Backend. Raises pika's error."""
        if channel.semantics is Semantics.STREAM:
            layout = Layout.of(channel)
            encode = stream.encoder(layout, self._settings.username)
            target = Target(encode, layout.missing, by_route=True)
        else:
            topology = Topology.of(channel)
            target = Target(
                encoder(topology, self._settings.username),
                topology.missing,
                refused=Stored.UNKNOWN if topology.exchange else Stored.NO,
            )
        return Producer(
            lambda: self._link(f"producer {channel.name}"), target, channel=channel.name
        )

    def queue_consumer(self, spec: ConsumerSpec) -> Consumer:
        """See Backend. Raises pika's error; ConfigError if ``prefetch`` is over 65535."""
        _check_prefetch(spec)
        survivors = self._survivors.setdefault(spec.member, set())
        return Consumer(
            self._link, spec, survivors, consumer_timeout_s=self._settings.consumer_timeout_s
        )

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> StreamConsumer:
        """See Backend. Raises pika's error; ConfigError if ``prefetch`` is over 65535."""
        _check_prefetch(spec)
        return StreamConsumer(self._link, spec, events)

    def classify(self, error: Exception) -> GearshiftError | None:
        """See Backend."""
        return errors.classify(error, self._settings.endpoints())

    def close(self) -> None:
        """Nothing is shared between drivers, so nothing to do."""

    def _link(self, purpose: str) -> Link:
        return Link(self._settings, purpose, self._nodes)

    def _warn_of_copies(self, channel: ChannelSpec) -> None:
        """Once: AMQP does not tell how large the cluster is, but the settings name its nodes."""
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
        topology = Topology.of(channel)
        if topology.adopted_queue is not None and len(channel.groups) > 1:
            raise NotSupported(
                f"native.queue adopts one queue, but groups lists {len(channel.groups)}",
                hint="keep one group, or name an exchange so that every group gets a queue",
                channel=channel.name,
            )
        names = [topology.exchange] if topology.exchange_is_ours else []
        if topology.adopted_queue is None:
            names += [delay_queues(topology.queue(group))[-1] for group in channel.groups]
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
