"""An open broker, which makes producers and consumers."""

from __future__ import annotations

import sys
import uuid
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Unpack, overload

from gearshift._core.clients import refuse_in_event_loop
from gearshift._core.consuming.rate_limit import RateLimit, parse_rate
from gearshift._core.consuming.retry import RetryPolicy
from gearshift._core.consuming.subscription import ConsumerPolicy
from gearshift._core.consuming.window import DeliveryWindow
from gearshift.bus.abandoned import close_abandoned
from gearshift.bus.connections import OPEN_TIMEOUT_S, Connections
from gearshift.bus.operating import OperatedBus
from gearshift.bus.policies import checked_prefetch, consumer_policy
from gearshift.codecs import codec_named
from gearshift.config import Config
from gearshift.consumer import Consumer, ConsumerOptions, StartName, as_start
from gearshift.driver import Backend, BackendPlugin, ConsumerSpec, Start
from gearshift.errors import NotSupported
from gearshift.hooks.registry import Hooks
from gearshift.message import DEFAULT_GROUP, Fields, Receipt, Semantics
from gearshift.producer import DEFAULT_TIMEOUT_S, Producer, ProducerPolicy
from gearshift.stats import ReceiveStats

__all__ = ["Bus"]

T = TypeVar("T")


class Bus(OperatedBus):
    """One open broker. Any thread. Close it, or use it in a ``with`` block.

    Closing it closes the producers and consumers that it made. A bus belongs to the process that
    opened it: open another one after a fork. One that is dropped, together with everything that it
    made, warns (ResourceWarning) and is closed in the background.
    """

    def __init__(
        self,
        config: Config,
        plugin: BackendPlugin,
        backend: Backend,
        hooks: Hooks | None = None,
        connections: Callable[..., Connections] = Connections,
    ) -> None:
        super().__init__(config, plugin, backend, hooks, connections)
        self._kept: dict[str, Producer] = {}  # of ``send``, by channel
        # A bus that is dropped or still open at exit sends what was submitted before it goes.
        self._finalizer = weakref.finalize(self, close_abandoned, self._connections)

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
        return self._producer(channel, requires, create, timeout_s, owner=self)

    def send(
        self,
        channel: str,
        value: object,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        **fields: Unpack[Fields],
    ) -> Receipt:
        """Send one message to ``channel`` and wait until the broker has stored it.

        By a producer that the bus connects with the first message to that channel and keeps until
        it is closed; where a channel is known beforehand, ``producer`` tells sooner what is wrong
        with it. Arguments, blocking and errors are those of ``producer`` and ``Producer.send``.
        """
        refuse_in_event_loop("send", instead="gearshift.aio")
        producer = self._kept.get(channel)
        if producer is None:
            # Its owner would be a circle, and a bus that is dropped could not be told from others.
            opened = self._producer(channel, (), None, min(timeout_s, OPEN_TIMEOUT_S), owner=None)
            producer = self._kept.setdefault(channel, opened)
            if producer is not opened:  # another thread was quicker
                opened.close()
        return producer.send(value, timeout_s=timeout_s, **fields)

    def _producer(
        self,
        channel: str,
        requires: Sequence[str],
        create: bool | None,
        timeout_s: float,
        owner: object,
    ) -> Producer:
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
        return Producer(buffer, policy, owner=owner, on_send=self.hooks.send)

    @overload
    def consumer(self, channel: str, **options: Unpack[ConsumerOptions]) -> Consumer[Any]: ...

    @overload
    def consumer(
        self, channel: str, *, value_type: type[T], **options: Unpack[ConsumerOptions]
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
            prefetch=checked_prefetch(settings.prefetch if prefetch is None else prefetch),
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
            longest_s=settings.max_processing_s,
            stats=ReceiveStats(channel=channel, group=None if ephemeral else name),
        )
        policy = consumer_policy(
            self.backend, wanted, settings, capabilities, dead_letters, value_type
        )
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
        settings = self._topology.settings(channel)
        name = self._topology.group(spec, group, create=None)
        capabilities = self._connections.ensure(spec, False, timeout_s)
        wanted = ConsumerSpec(
            channel=spec,
            group=name,
            member=f"{channel}-{uuid.uuid4().hex[:12]}",
            prefetch=checked_prefetch(prefetch),
        )
        policy = replace(
            consumer_policy(self.backend, wanted, settings, capabilities, None, Any),
            retry=RetryPolicy(max_attempts=sys.maxsize),
            inspects=True,
            observes=True,
        )
        window = DeliveryWindow(
            prefetch,
            prefetch_bytes=settings.prefetch_bytes,
            stats=ReceiveStats(channel=channel, group=name),
        )
        return self._consume(wanted, window, policy, False, timeout_s)

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

    def _consume(
        self,
        spec: ConsumerSpec,
        window: DeliveryWindow,
        policy: ConsumerPolicy,
        create: bool | None,
        timeout_s: float,
    ) -> Consumer[Any]:
        subscription = self._connections.subscribe(spec, window, policy, create, timeout_s)
        return Consumer(subscription, owner=self)
