"""From settings to a broker: ``open`` gives a Bus, which makes producers and consumers."""

from __future__ import annotations

import logging
import sys
import uuid
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

from gearshift import config as configuration
from gearshift import plugins as backends
from gearshift._core.clients import Closing
from gearshift._core.consuming.dead_letters import DeadLetters
from gearshift._core.consuming.rate_limit import RateLimit, parse_rate
from gearshift._core.consuming.retry import RetryPolicy
from gearshift._core.consuming.shared import SharedWindow
from gearshift._core.consuming.subscription import ConsumerPolicy, Subscription
from gearshift._core.consuming.user_side import UserSide
from gearshift._core.consuming.window import DeliveryWindow
from gearshift._core.entry_points import installed
from gearshift.bus.abandoned import close_abandoned
from gearshift.bus.connections import OPEN_TIMEOUT_S, Connections
from gearshift.bus.topology import Topology
from gearshift.capabilities import Capabilities, Requirement
from gearshift.codecs import codec_named, decode
from gearshift.config import Config
from gearshift.consumer import Consumer, StartName, as_start
from gearshift.driver import (
    Backend,
    BackendPlugin,
    ChannelSpec,
    Condition,
    ConsumerSpec,
    GroupStatus,
    Start,
)
from gearshift.errors import Closed, ConfigError, NotSupported, UsageError
from gearshift.hooks.registry import GROUP, Hooks, load_hooks
from gearshift.message import DEFAULT_GROUP, Message, Semantics
from gearshift.producer import Producer, ProducerPolicy
from gearshift.rehearsal import Rehearsed
from gearshift.stats import ReceiveStats, Stats

__all__ = ["Bus", "open_bus"]

log = logging.getLogger("gearshift.bus")

T = TypeVar("T")


def open_bus(
    source: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Config | None = None,
    plugins: Sequence[object] = (),
) -> Bus:
    """Open the broker that the configuration selects. This is ``gearshift.open``.

    Reads the file ``source``, or ``gearshift.toml`` found by walking up from the current folder,
    and the environment; without a file it is an embedded SQLite broker. ``profile`` chooses a
    profile over both. Instead of a file, ``source`` may be

    - a broker's URL, such as ``amqp://user:password@host/vhost``; channels have the defaults;
    - ``settings``, a mapping of the form that the file has;
    - ``config``, a Config that was loaded before.

    ``plugins`` have hooks that are called around what the bus does: see ``gearshift.hooks``.

    No connection is made before the first producer or consumer. Raises ConfigError, PluginError,
    and UsageError for arguments that exclude one another or a plugin that cannot be called.
    """
    loaded = _configured(source, settings, config, profile)
    hooks = load_hooks(plugins, installed(GROUP))
    with loaded.masking():
        plugin = backends.load(loaded.backend)
        _check_codecs(loaded)
        backend = plugin.connect(loaded.settings_for(plugin))
    loaded.clear(backend.endpoints())
    if loaded.rehearsal is not None:
        backend = Rehearsed(backend, loaded.rehearsal)
    return Bus(loaded, plugin, backend, hooks)


class Bus(Closing):
    """One open broker. Any thread. Close it, or use it in a ``with`` block.

    Closing it closes the producers and consumers that it made. A bus belongs to the process that
    opened it: open another one after a fork. One that is dropped, together with everything that it
    made, warns (ResourceWarning) and is closed in the background.
    """

    def __init__(
        self, config: Config, plugin: BackendPlugin, backend: Backend, hooks: Hooks | None = None
    ) -> None:
        self.config = config
        self.hooks = load_hooks() if hooks is None else hooks
        self._plugin = plugin
        self._backend = backend
        self._topology = Topology(config, plugin)
        self._connections = Connections(backend, plugin.name, self._topology, self.hooks)
        self._closed = False
        # A bus that is dropped or still open at exit sends what was submitted before it goes.
        self._finalizer = weakref.finalize(self, close_abandoned, self._connections)

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self._plugin.name

    @property
    def profile(self) -> str:
        """The name of the profile."""
        return self.config.profile

    # ── producers and consumers ──

    def producer(
        self,
        channel: str,
        *,
        requires: Sequence[str] = (),
        create: bool | None = None,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> Producer:
        """A producer for ``channel``, connected and checked.

        ``requires`` names capabilities that this code cannot do without, besides those of the
        configuration: ``["fan_out", "order=key"]``; NotSupported if one is missing. ``create`` True
        creates a channel that is missing, False never; None creates those that the configuration
        lists, or any if it lists none. Blocks for about ``timeout_s`` seconds at most. Raises
        ConnectionFailed, UnknownChannel, TopologyConflict, NotSupported, ConfigError.
        """
        spec, _ = self._checked(channel, requires)
        capabilities = self._connections.ensure(self._topology.published(spec), create, timeout_s)
        settings = self._topology.settings(channel)
        policy = ProducerPolicy(
            channel=channel,
            backend=self.backend,
            codec=codec_named(settings.codec),
            max_message_bytes=capabilities.max_message_bytes,
            tombstones=capabilities.tombstone,
        )
        buffer = self._connections.buffer(spec, create, timeout_s)
        self._connections.remember(buffer)
        return Producer(buffer, policy, owner=self, on_send=self.hooks.send)

    @overload
    def consumer(
        self,
        channel: str,
        *,
        group: str | None = ...,
        prefetch: int | None = ...,
        start: Start | StartName = ...,
        ephemeral: bool = ...,
        serial_keys: bool = ...,
        rate_limit: str | None = ...,
        requires: Sequence[str] = ...,
        create: bool | None = ...,
        timeout_s: float = ...,
    ) -> Consumer[Any]: ...

    @overload
    def consumer(
        self,
        channel: str,
        *,
        value_type: type[T],
        group: str | None = ...,
        prefetch: int | None = ...,
        start: Start | StartName = ...,
        ephemeral: bool = ...,
        serial_keys: bool = ...,
        rate_limit: str | None = ...,
        requires: Sequence[str] = ...,
        create: bool | None = ...,
        timeout_s: float = ...,
    ) -> Consumer[T]: ...

    def consumer(
        self,
        channel: str,
        *,
        group: str | None = None,
        value_type: Any = Any,
        prefetch: int | None = None,
        start: Start | StartName = "earliest",
        ephemeral: bool = False,
        serial_keys: bool = False,
        rate_limit: str | None = None,
        requires: Sequence[str] = (),
        create: bool | None = None,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> Consumer[Any]:
        """A consumer of ``channel`` as a member of ``group`` (None: the default group).

        ``value_type`` is what ``Delivery.value`` decodes to: a msgspec Struct, a dataclass, a
        pydantic model. ``prefetch`` bounds the unsettled deliveries. ``start`` is where a new group
        of a stream begins: "earliest", "latest", ``Start.at_offsets(...)`` or
        ``Start.at_time(...)``. An ``ephemeral`` consumer has a group of its own that leaves nothing
        behind. With ``serial_keys`` no two deliveries of one key are in hand at once, so that
        several threads keep each key's order. ``rate_limit``
        ("100/s", "30/min", "500/h") bounds how many deliveries this consumer gives in a time,
        retries included; None is the channel's setting, which by default is no limit.

        Blocking, ``requires``, ``create`` and errors as for ``producer``, and UnknownGroup.
        """
        spec, capabilities = self._checked(channel, requires)
        settings = self._topology.settings(channel)
        if ephemeral and not capabilities.ephemeral_group:
            raise NotSupported("no ephemeral groups here", backend=self.backend, channel=channel)
        name = DEFAULT_GROUP if ephemeral else self._topology.group(spec, group, create=create)
        if not ephemeral and spec.semantics is Semantics.QUEUE and name not in spec.groups:
            spec = replace(spec, groups=(*spec.groups, name))
        capabilities = self._connections.ensure(spec, create, timeout_s)
        member = f"{channel}-{uuid.uuid4().hex[:12]}"
        wanted = ConsumerSpec(
            channel=spec,
            group=member if ephemeral else name,
            member=member,
            prefetch=_checked_prefetch(settings.prefetch if prefetch is None else prefetch),
            start=as_start(start),
            ephemeral=ephemeral,
        )
        dead_letters = None
        if not ephemeral:
            largest = capabilities.max_message_bytes
            dead_letters = self._connections.dead_letters(spec, name, largest, timeout_s)
        rate = settings.rate_limit if rate_limit is None else rate_limit
        window = DeliveryWindow(
            wanted.prefetch,
            prefetch_bytes=settings.prefetch_bytes,
            serial_keys=serial_keys,
            rate_limit=None if rate is None else RateLimit(parse_rate(rate)),
            stats=ReceiveStats(channel=channel, group=None if ephemeral else name),
        )
        policy = self._policy(wanted, capabilities, dead_letters, value_type)
        return self._consume(wanted, window, policy, create, timeout_s)

    def inspect(
        self,
        channel: str,
        *,
        group: str | None = None,
        prefetch: int = 100,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> Consumer[Any]:
        """A consumer for tools that look at what waits for ``group``, or move it.

        It takes messages in hand like any member of the group, gives up on none whatever its
        attempts, and gives back on ``close`` what was not settled. Creates nothing. Blocking and
        errors as for ``consumer``.
        """
        spec, _ = self._checked(channel)
        name = self._topology.group(spec, group, create=None)
        capabilities = self._connections.ensure(spec, False, timeout_s)
        wanted = ConsumerSpec(
            channel=spec,
            group=name,
            member=f"{channel}-{uuid.uuid4().hex[:12]}",
            prefetch=_checked_prefetch(prefetch),
        )
        policy = replace(
            self._policy(wanted, capabilities, None, Any),
            retry=RetryPolicy(max_attempts=sys.maxsize),
            inspects=True,
            observes=True,
        )
        window = DeliveryWindow(
            prefetch,
            prefetch_bytes=self._topology.settings(channel).prefetch_bytes,
            stats=ReceiveStats(channel=channel, group=name),
        )
        return self._consume(wanted, window, policy, False, timeout_s)

    # ── operating ──

    def stats(self) -> Stats:
        """What the producers and consumers of this bus have done, and how they are. Asks no broker.

        An entry per channel, and per channel and group; closed ones are included.
        """
        return self._connections.tally.stats()

    def server(self) -> str:
        """Product and version of the server. Connects; raises ConnectionFailed."""
        return self._connections.ask(None, lambda admin: admin.server())

    def endpoints(self) -> Sequence[tuple[str, int]]:
        """Host and port of each server; empty for an embedded broker."""
        return self._backend.endpoints()

    def capabilities(self, channel: str, *, live: bool = False) -> Capabilities:
        """What the backend declares for ``channel``, of any server, without traffic.

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

    def replication(self, channels: Sequence[str]) -> Sequence[Condition] | None:
        """The nodes of the cluster, and the copies of ``channels``, of their dead letters and of
        all that stands beside them; None if the backend does not tell. Raises ConnectionFailed."""
        specs = [self._topology.spec(channel) for channel in channels]
        dead = [self._topology.dead_letter_spec(spec) for spec in specs]
        wanted = {spec.name: spec for spec in (*specs, *dead) if spec is not None}
        return self._connections.ask(None, lambda admin: admin.replication(list(wanted.values())))

    def exists(self, channel: str) -> bool:
        """True if the channel is there. Creates nothing."""
        spec = self._topology.spec(channel)
        return self._connections.ask(channel, lambda admin: admin.exists(spec))

    def declare(self, channel: str, *, create: bool | None = None) -> None:
        """Create ``channel`` and its groups as ``producer`` would. Raises as it does."""
        spec, _ = self._checked(channel)
        self._connections.ensure(self._topology.published(spec), create, OPEN_TIMEOUT_S)

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

    def close(self, timeout_s: float = 30.0) -> None:
        """Close all consumers, then all producers, then the backend. Idempotent.

        Each may take about ``timeout_s`` seconds to finish what it has begun.
        """
        if self._closed:
            return
        self._closed = True
        self._finalizer.detach()
        self._connections.close(timeout_s)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)

    def __repr__(self) -> str:
        return f"<Bus {self.profile!r} on {self.backend!r}>"

    # ── inside ──

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

    def _policy(
        self,
        spec: ConsumerSpec,
        capabilities: Capabilities,
        dead_letters: DeadLetters | None,
        value_type: Any,
    ) -> ConsumerPolicy:
        channel = spec.channel
        settings = self._topology.settings(channel.name)
        codec = codec_named(settings.codec)

        def decode_message(message: Message) -> Any:
            content = message.content_type, value_type, message.content_encoding
            return decode(codec, message.body, *content)

        return ConsumerPolicy(
            backend=self.backend,
            channel=channel.name,
            group=spec.group,
            decode=decode_message,
            retry=RetryPolicy(
                max_attempts=settings.max_attempts,
                delay_s=settings.retry_delay_s,
                max_delay_s=settings.retry_max_delay_s,
            ),
            dead_letters=dead_letters,
            holds_retries=_holds_retries(capabilities),
            can_seek=capabilities.seek and channel.semantics is Semantics.STREAM,
            observes=spec.ephemeral,
        )

    def _consume(
        self,
        spec: ConsumerSpec,
        window: DeliveryWindow,
        policy: ConsumerPolicy,
        create: bool | None,
        timeout_s: float,
    ) -> Consumer[Any]:
        shared = SharedWindow(window)
        loop = self._connections.consumer_loop(spec, shared, create, timeout_s)
        loop.start()
        subscription = Subscription(loop, UserSide(shared), policy, self.hooks.listeners)
        self._connections.remember(subscription)
        return Consumer(subscription, owner=self)


def _configured(
    source: object,
    settings: Mapping[str, Any] | None,
    config: Config | None,
    profile: str | None,
) -> Config:
    if sum(one is not None for one in (source, settings, config)) > 1:
        raise UsageError("open() takes one of a file, a URL, settings and a config")
    if config is not None and not isinstance(config, Config):
        raise UsageError(
            f"config is a Config, not {type(config).__name__}", hint="Config.from_mapping makes one"
        )
    if settings is not None:
        return configuration.load(settings=settings, profile=profile)
    source = source if config is None else config
    is_url = isinstance(source, str) and "://" in source
    if profile is not None and (is_url or isinstance(source, Config)):
        raise UsageError("profile is for a file or settings; a URL or a Config has its profile")
    if isinstance(source, Config):
        return source
    if isinstance(source, str) and is_url:
        table = backends.profile_for_url(source)
        return configuration.load(settings={"profiles": {"url": table}}, profile="url")
    if isinstance(source, Mapping):
        return configuration.load(settings=source, profile=profile)
    if source is None or isinstance(source, str | Path):
        return configuration.load(source, profile=profile)
    raise UsageError(
        f"open() takes a file, a URL, settings or a config, not {type(source).__name__}",
        hint='gearshift.open("gearshift.toml"), gearshift.open(profile="rabbit")',
    )


def _check_codecs(config: Config) -> None:
    for name, settings in config.channels.items():
        problem = None
        try:
            codec_named(settings.codec)
        except ConfigError as error:
            problem = config.channel_error(name, "codec", error)
        if problem:  # raised here, so that what was not masked is not its context
            raise problem


def _holds_retries(capabilities: Capabilities) -> Callable[[float], bool]:
    def holds(delay_s: float) -> bool:
        return not capabilities.native_retry or (delay_s > 0 and not capabilities.native_delay)

    return holds


def _checked_prefetch(prefetch: int) -> int:
    if isinstance(prefetch, bool) or not isinstance(prefetch, int) or not 1 <= prefetch <= 10_000:
        raise ConfigError(f"prefetch {prefetch!r} is out of range", hint="use 1 to 10000")
    return prefetch
