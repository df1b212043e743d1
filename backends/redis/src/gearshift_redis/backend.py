"""The backend: makes a client for each driver."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from gearshift import driver
from gearshift.driver import AdminDriver, ChannelSpec, ConsumerSpec, ProducerDriver, QueueDriver
from gearshift.driver.settings import first_remote
from gearshift.errors import ConfigError, GearshiftError
from gearshift_redis.admin import Admin
from gearshift_redis.connection import check_persistence, connect
from gearshift_redis.errors import classify
from gearshift_redis.layout import Layout
from gearshift_redis.life import SignOfLife
from gearshift_redis.producer import Producer
from gearshift_redis.queue import QueueConsumer
from gearshift_redis.settings import Settings

__all__ = ["Backend"]

logger = logging.getLogger("gearshift.redis")


class Backend(driver.Backend):
    """A Backend. Every driver has a connection of its own; nothing is shared, so any thread."""

    def __init__(self, settings: Settings) -> None:
        """No I/O. Warns of what is unsafe."""
        self._settings = settings
        remote = first_remote(self.endpoints())
        if settings.tls_insecure_skip_verify:
            logger.warning("tls_insecure_skip_verify: anybody may answer as %r", remote)
        elif remote is not None and not settings.tls:
            logger.warning("messages and password go to %r in plain text; use rediss://", remote)

    def endpoints(self) -> Sequence[tuple[str, int]]:
        return [self._settings.address]

    def check(self, channel: ChannelSpec) -> None:
        """Raises ConfigError."""
        if channel.retention_s is not None:
            raise ConfigError(
                "retention_s is for streams; a queue keeps a message until it is settled",
                channel=channel.name,
            )

    def admin(self) -> AdminDriver:
        return Admin(connect(self._settings))

    def producer(self, channel: ChannelSpec) -> ProducerDriver:
        """Raises NotSupported for a server that forgets."""
        client = connect(self._settings)
        try:
            check_persistence(client, self._settings)
            return Producer(client, Layout.of(channel))
        except BaseException:
            client.close()
            raise

    def queue_consumer(self, spec: ConsumerSpec) -> QueueDriver:
        life = SignOfLife(partial(connect, self._settings), self._settings.lease_s)
        client = connect(self._settings, life.moved)
        try:
            return QueueConsumer(client, Layout.of(spec.channel), spec, life)
        except BaseException:
            client.close()
            raise

    def classify(self, error: Exception) -> GearshiftError | None:
        return classify(error, self._settings.address)
