"""The Backend of ``memory``."""

from __future__ import annotations

import time

from gearshift import driver
from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents
from gearshift.embedded.memory.admin import Admin, Channels
from gearshift.embedded.memory.channel import Clock, QueueChannel, StreamChannel
from gearshift.embedded.memory.producer import Producer
from gearshift.embedded.memory.queue import QueueConsumer
from gearshift.embedded.memory.settings import Settings
from gearshift.embedded.memory.stream import Member
from gearshift.embedded.stream import StreamConsumer
from gearshift.errors import GearshiftError

__all__ = ["Backend"]


class Backend(driver.Backend):
    """Channels that live as long as this object. Any thread.

    Records of a stream are found by ``clock``; retries are due by ``uptime``, which nobody sets.
    """

    def __init__(
        self, settings: Settings, clock: Clock = time.time, uptime: Clock = time.monotonic
    ) -> None:
        self._channels = Channels(settings.max_messages, clock, uptime)

    def admin(self) -> Admin:
        return Admin(self._channels)

    def producer(self, channel: ChannelSpec) -> Producer:
        return Producer(self._channels.get(channel))

    def queue_consumer(self, spec: ConsumerSpec) -> QueueConsumer:
        channel = self._channels.get(spec.channel)
        assert isinstance(channel, QueueChannel)
        return QueueConsumer(channel, spec)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> StreamConsumer:
        channel = self._channels.get(spec.channel)
        assert isinstance(channel, StreamChannel)
        return StreamConsumer(Member(channel, spec), events)

    def next_due(self) -> float | None:
        """When the next delayed retry is due that is not due yet, by ``uptime``; None: there is
        none."""
        return min((due for one in self._channels for due in one.coming()), default=None)

    def classify(self, error: Exception) -> GearshiftError | None:
        """Drivers of this backend raise nothing but errors that are already ours."""
        return error if isinstance(error, GearshiftError) else None

    def close(self) -> None:
        self._channels.clear()
