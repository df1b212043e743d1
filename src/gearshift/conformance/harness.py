"""The harness that a backend's author gives to the kit, one per backend and semantics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from gearshift import config as configuration
from gearshift.bus import Bus
from gearshift.capabilities import Capabilities, Durability
from gearshift.config import Config
from gearshift.conformance.history import History
from gearshift.conformance.observing import observed
from gearshift.conformance.proxy import Proxy
from gearshift.driver import Backend, BackendPlugin
from gearshift.driver.helpers import Wrapper
from gearshift.message import Semantics

__all__ = ["BrokerProcess", "Faults", "Harness", "lives_in_process", "shared"]


class BrokerProcess(Protocol):
    """A broker that the kit may break: a child process of its own, with nothing else on it."""

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""

    def start(self) -> None:
        """Start it again on the same port with the same data, and wait until it answers."""

    def pause(self) -> None:
        """SIGSTOP."""

    def resume(self) -> None:
        """SIGCONT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The parts that may be broken. One that is None cannot exist for this backend (an embedded one
    has no server); without any Faults at all the fault tests are listed as not run.

    ``cable`` is the network between the profile's clients and the broker.
    ``workers``: other processes can reach the broker through the same profile, and what one of them
    leaves unfinished comes again. ``heartbeat_s``: how long the broker may stand still before its
    clients take it for dead, as the profile sets it.
    """

    broker: BrokerProcess | None
    cable: Proxy | None
    workers: bool
    heartbeat_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Harness:
    """A backend under test.

    ``config`` selects the profile; its channels are replaced by the kit's own. ``patience_s`` is
    how long the kit waits for anything before it fails, and ``pace`` scales the amount of work.
    ``lease_s`` is how long a worker may stand still before its work goes to another, as the profile
    sets it: the shorter, the sooner the kit has seen that one which works keeps what it has.
    ``known_failures`` gives a reason per behaviour that is known to fail: one that then passes
    is a failure too. ``edition`` tells this server from others of the same backend, each of which
    is a column of its own.
    """

    config: Config
    semantics: Semantics
    faults: Faults | None = None
    patience_s: float = 30.0
    pace: float = 1.0
    lease_s: float = 30.0
    known_failures: Mapping[str, str] = field(default_factory=dict)
    edition: str = ""
    plugin: BackendPlugin = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.plugin is None:
            object.__setattr__(self, "plugin", self.config.load_plugin())

    @property
    def label(self) -> str:
        """Backend, edition and semantics, such as ``rabbitmq queue`` or ``rabbitmq 4 queue``."""
        words = (self.plugin.name, self.edition, str(self.semantics))
        return " ".join(word for word in words if word)

    @cached_property
    def capabilities(self) -> Capabilities:
        """The capabilities for these semantics, on the server that answers."""
        with self.connect({"kit": {"semantics": str(self.semantics)}}) as bus:
            return bus.capabilities("kit", live=True)

    @cached_property
    def server(self) -> str:
        """Product and version of the server that answers."""
        with self.connect({}) as bus:
            return bus.server()

    def connect(
        self, channels: Mapping[str, Mapping[str, object]], history: History | None = None
    ) -> Bus:
        """A fresh client that knows ``channels``; who owns partitions goes into ``history``."""
        config = configuration.with_channels(self.config, channels)
        backend = self.plugin.connect(config.settings_for(self.plugin))
        if history is not None:
            backend = observed(backend, history)
        return Bus(config, self.plugin, backend)


def lives_in_process(plugin: BackendPlugin) -> bool:
    """True if what the backend stores is gone with its Backend object."""
    return all(one.durability is Durability.NOTHING for one in plugin.capabilities.values())


def shared(plugin: BackendPlugin) -> BackendPlugin:
    """``plugin`` for a broker that lives inside its Backend: all clients get the same one."""
    made: list[Any] = []

    def connect(settings: object) -> Backend:
        if not made:
            made.append(_Kept(plugin.connect(settings)))
        backend: Backend = made[0]
        return backend

    return replace(plugin, connect=connect)


class _Kept(Wrapper):
    """A Backend that a bus cannot close."""

    def close(self) -> None:
        """The next client needs it."""
