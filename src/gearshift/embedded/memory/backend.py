"""The Backend of ``memory`` and its settings."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from gearshift.driver import ChannelSpec, ConsumerSpec, LogEvents
from gearshift.embedded.log import EmbeddedLog
from gearshift.embedded.memory.admin import Channels, MemoryAdmin
from gearshift.embedded.memory.channel import Clock, QueueChannel, StreamChannel
from gearshift.embedded.memory.log import MemoryLogStore
from gearshift.embedded.memory.producer import MemoryProducer
from gearshift.embedded.memory.queue import MemoryQueue
from gearshift.errors import GearshiftError

__all__ = ["MemoryBackend", "MemorySettings"]


class MemorySettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``max_messages`` bounds what one channel holds; over it, publishing is refused."""

    max_messages: int = 1_000_000

    def __post_init__(self) -> None:
        if self.max_messages < 1:
            raise ValueError(f"max_messages: must be at least 1, got {self.max_messages}")


class MemoryBackend:
    """Channels that live as long as this object. Any thread.

    Records of a stream are found by ``clock``; retries are due by ``uptime``, which nobody sets.
    """

    def __init__(
        self,
        settings: MemorySettings,
        clock: Clock = time.time,
        uptime: Clock = time.monotonic,
    ) -> None:
        self._channels = Channels(settings.max_messages, clock, uptime)

    def endpoints(self) -> Sequence[tuple[str, int]]:
        return ()

    def check(self, channel: ChannelSpec) -> None:
        """Nothing that a channel can set is beyond this backend."""

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self._channels)

    def producer(self, channel: ChannelSpec) -> MemoryProducer:
        return MemoryProducer(self._channels.get(channel))

    def queue_consumer(self, spec: ConsumerSpec) -> MemoryQueue:
        channel = self._channels.get(spec.channel)
        assert isinstance(channel, QueueChannel)
        return MemoryQueue(channel, spec)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> EmbeddedLog:
        channel = self._channels.get(spec.channel)
        assert isinstance(channel, StreamChannel)
        return EmbeddedLog(MemoryLogStore(channel, spec), events)

    def classify(self, error: Exception) -> GearshiftError | None:
        """Drivers of this backend raise nothing but errors that are already ours."""
        return error if isinstance(error, GearshiftError) else None

    def close(self) -> None:
        self._channels.clear()
