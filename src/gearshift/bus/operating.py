"""Questions to an open broker, and what operators do with its channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gearshift._core.clients import Closing
from gearshift.bus.connections import OPEN_TIMEOUT_S, Connections
from gearshift.bus.topology import Topology
from gearshift.capabilities import Capabilities, Requirement
from gearshift.config import Config
from gearshift.driver import (
    AdminDriver,
    Backend,
    BackendPlugin,
    ChannelSpec,
    Condition,
    GroupStatus,
)
from gearshift.errors import Closed, NotSupported
from gearshift.hooks.registry import Hooks, load_hooks
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift.stats import Stats

__all__ = ["OperatedBus"]


class OperatedBus(Closing):
    """The part of a Bus that makes no producer and no consumer. Any thread."""

    def __init__(
        self,
        config: Config,
        plugin: BackendPlugin,
        backend: Backend,
        hooks: Hooks | None = None,
        connections: Callable[..., Connections] = Connections,
    ) -> None:
        self.config = config
        self.hooks = load_hooks() if hooks is None else hooks
        self._plugin = plugin
        self._backend = backend
        self._topology = Topology(config, plugin)
        self._connections = connections(backend, plugin.name, self._topology, self.hooks)
        self._closed = False

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self._plugin.name

    @property
    def profile(self) -> str:
        """The name of the profile."""
        return self.config.profile

    def stats(self) -> Stats:
        """Counters and state of this bus's producers and consumers. Asks no broker.

        An entry per channel, and per channel and group; closed ones are included.
        """
        return self._connections.statistics.stats()

    def server(self) -> str:
        """Product and version of the server. Connects; raises ConnectionFailed."""
        return self._connections.ask(None, lambda admin: admin.server())

    def endpoints(self) -> Sequence[tuple[str, int]]:
        """Host and port of each server; empty for an embedded broker."""
        return self._backend.endpoints()

    def capabilities(self, channel: str, *, live: bool = False) -> Capabilities:
        """The capabilities that the backend declares for ``channel``, without traffic.

        With ``live`` the server is asked, which may give more: RabbitMQ before 4.0 takes larger
        messages. Creates nothing. Raises NotSupported as ``producer`` would; if live also
        ConnectionFailed.
        """
        spec, declared = self._checked(channel)
        if not live:
            return declared
        return self._connections.ask(channel, lambda admin: admin.capabilities(spec, declared))

    def semantics(self, channel: str) -> Semantics:
        """The semantics of ``channel`` on this backend."""
        return self._topology.spec(channel).semantics

    def groups(self, channel: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> Sequence[GroupStatus]:
        """The state of the channel's groups; what the broker does not tell is None.

        Waits for an answer for about ``timeout_s`` seconds. Raises ConnectionFailed.
        """
        spec, _ = self._checked(channel)
        return self._connections.ask(channel, lambda admin: admin.groups(spec), timeout_s)

    def dead_letters(self, channel: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> int | None:
        """The number of dead letters that wait in ``channel``, which holds those of others.

        0 if it is not there; None if the broker does not tell. Blocks and raises as ``groups``.
        """
        # That is the group of redrive, which on a stream has no position before the first one.
        spec = replace(self._topology.spec(channel), groups=(DEFAULT_GROUP,))

        def count(admin: AdminDriver) -> int | None:
            if not admin.exists(spec):
                return 0
            (state,) = (one for one in admin.groups(spec) if one.group == DEFAULT_GROUP)
            return state.retained if state.waiting is None else state.waiting

        return self._connections.ask(channel, count, timeout_s)

    def replication(self, channels: Sequence[str]) -> Sequence[Condition] | None:
        """The nodes of the cluster, and the copies of ``channels``, of their dead letters and of
        all that stands beside them; None if the backend does not tell. Raises ConnectionFailed."""
        specs = [self._topology.spec(channel) for channel in channels]
        dead = [self._topology.dead_letter_spec(spec) for spec in specs]
        wanted = {spec.name: spec for spec in (*specs, *dead) if spec is not None}
        return self._connections.ask(None, lambda admin: admin.replication(list(wanted.values())))

    def exists(self, channel: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> bool:
        """True if the channel is there. Creates nothing."""
        spec = self._topology.spec(channel)
        return self._connections.ask(channel, lambda admin: admin.exists(spec), timeout_s)

    def check_known(self, channel: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Raise UnknownChannel if neither the settings nor the broker know ``channel``.

        One that is configured may be yet to come. Waits for an answer for about ``timeout_s``
        seconds. Raises ConnectionFailed.
        """
        if not (self._topology.is_configured(channel) or self.exists(channel, timeout_s=timeout_s)):
            raise self._topology.missing(channel)

    def declare(
        self, channel: str, *, create: bool | None = None, timeout_s: float = OPEN_TIMEOUT_S
    ) -> None:
        """Create ``channel`` and its groups as ``producer`` would. Blocks and raises as it does."""
        spec, _ = self._checked(channel)
        self._connections.ensure(self._topology.published(spec), create, timeout_s)

    def purge(self, channel: str, group: str | None = None) -> int | None:
        """Throw away what waits for ``group``; how many messages, if the broker tells."""
        spec, capabilities = self._checked(channel)
        if not capabilities.purge:
            raise NotSupported("cannot be purged", backend=self.backend, channel=channel)
        with self._connections.admin(channel) as admin:
            return admin.purge(spec, self._topology.group(spec, group, create=False))

    def delete(self, channel: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Remove ``channel``, its groups and its messages for good; fine if it is not there.

        A broker that cannot list a channel's groups (RabbitMQ, for queues) removes those that the
        settings list and those that this bus has opened. Waits for a broker that is away for about
        ``timeout_s`` seconds. Raises ConnectionFailed.
        """
        spec = self._connections.with_opened_groups(self._topology.spec(channel))
        self._connections.ask(channel, lambda admin: admin.delete(spec), timeout_s)

    def __repr__(self) -> str:
        return f"<Bus {self.profile!r} on {self.backend!r}>"

    def _checked(
        self, channel: str, requires: Sequence[str] = ()
    ) -> tuple[ChannelSpec, Capabilities]:
        if self._closed:
            raise Closed("this bus is closed", channel=channel)
        spec = self._topology.spec(channel)
        capabilities = self._topology.capabilities(spec, Requirement.parse_all(requires))
        with self._connections.failures(channel).raised():
            self._backend.check(spec)
        return spec, capabilities
