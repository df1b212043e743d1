"""The Backend of ``chaos``: wraps each driver of another one."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gearshift import driver
from gearshift.capabilities import Capabilities
from gearshift.chaos.consumers import ChaosLogConsumer, ChaosQueueConsumer
from gearshift.chaos.injector import ConnectionDropped, Injector, Side
from gearshift.chaos.producer import ChaosProducer
from gearshift.chaos.settings import Settings
from gearshift.driver import AdminDriver, ChannelSpec, ConsumerSpec, LogEvents
from gearshift.driver.helpers import Wrapper
from gearshift.errors import GearshiftError
from gearshift.message import Semantics
from gearshift.misfortunes import Situation

__all__ = ["ChaosBackend"]

log = logging.getLogger("gearshift.chaos")


class ChaosBackend(driver.Backend):
    """See Backend. Any thread; ``_lock`` guards the dictionaries.

    ``declared`` is what the backend ``below`` declares; where a server gives more, which core asks
    before it opens anything, that is what holds. ``on_loss`` hears of each lost connection.
    """

    def __init__(
        self, below: driver.Backend, settings: Settings, declared: Mapping[Semantics, Capabilities]
    ) -> None:
        self.on_loss: Callable[[str], None] = lambda text: None
        self._below = below
        self._settings = settings
        self._declared = declared
        self._lock = threading.Lock()
        self._given: dict[str, Capabilities] = {}  # by channel
        self._sides: dict[str, Side] = {}
        log.warning(
            "chaos is on, over profile %r with seed %d: connections are lost and messages come "
            "late and again, as far as its capabilities allow",
            settings.over, settings.seed,
        )  # fmt: skip

    def endpoints(self) -> Sequence[tuple[str, int]]:
        return self._below.endpoints()

    def check(self, channel: ChannelSpec) -> None:
        self._below.check(channel)

    def admin(self) -> Any:
        return _Admin(self._below.admin(), self._learn)

    def producer(self, channel: ChannelSpec) -> Any:
        return ChaosProducer(self._below.producer(channel), self._injector(channel, "producers"))

    def queue_consumer(self, spec: ConsumerSpec) -> Any:
        return ChaosQueueConsumer(self._below.queue_consumer(spec), self._injector_of(spec))

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> Any:
        def connect(passed: LogEvents) -> driver.LogDriver:
            return self._below.log_consumer(spec, passed)

        return ChaosLogConsumer(connect, events, self._injector_of(spec))

    def classify(self, error: Exception) -> GearshiftError | None:
        return error if isinstance(error, ConnectionDropped) else self._below.classify(error)

    def close(self) -> None:
        self._below.close()
        with self._lock:
            played = sum((side.played for side in self._sides.values()), Counter[str]())
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(played.items()))
        log.warning("chaos is over, misfortunes played: %s", counts or "none")

    def _learn(self, channel: str, given: Capabilities) -> None:
        with self._lock:
            self._given[channel] = given

    def _injector_of(self, spec: ConsumerSpec) -> Injector:
        group = "an ephemeral group" if spec.ephemeral else f"group {spec.group!r}"
        return self._injector(spec.channel, group)

    def _injector(self, channel: ChannelSpec, who: str) -> Injector:
        name = f"channel {channel.name!r}, {who}"
        with self._lock:
            side = self._sides.get(name)
            if side is None:
                side = self._sides[name] = Side(name, self._settings, self._heard)
            given = self._given.get(channel.name, self._declared[channel.semantics])
        situation = Situation(
            capabilities=given, semantics=channel.semantics, processes=self._settings.processes
        )
        return Injector(side, situation)

    def _heard(self, text: str) -> None:
        self.on_loss(text)


class _Admin(Wrapper):
    """An AdminDriver. Nothing befalls it; chaos learns what the server gives."""

    def __init__(self, below: AdminDriver, learn: Callable[[str, Capabilities], None]) -> None:
        super().__init__(below)
        self._learn = learn

    def capabilities(self, channel: ChannelSpec, declared: Capabilities) -> Capabilities:
        given: Capabilities = self.inner.capabilities(channel, declared)
        self._learn(channel.name, given)
        return given
