"""Open producers and consumers of a bus, and opening more.

Knows nothing of the bus, and so do the threads that hold this: a bus that is dropped without
``close`` is noticed, though its threads still run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, TypeAlias, TypeVar, cast

from gearshift._core.consuming.dead_letters import DeadLetters
from gearshift._core.consuming.loop import ConsumerLoop
from gearshift._core.consuming.receivers import LogReceiver, QueueReceiver, Receiver
from gearshift._core.consuming.shared_window import SharedWindow
from gearshift._core.consuming.subscription import ConsumerPolicy, Subscription
from gearshift._core.consuming.user_side import UserSide
from gearshift._core.consuming.window import DeliveryWindow
from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.logs import SAY_AGAIN_S, LimitedLog
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift._core.reconnect import connect_until
from gearshift.bus.statistics import StatisticsRegistry
from gearshift.bus.topology import Topology
from gearshift.capabilities import Capabilities
from gearshift.driver import AdminDriver, Backend, ChannelSpec, ConsumerSpec
from gearshift.errors import GearshiftError
from gearshift.hooks.registry import Hooks
from gearshift.message import Semantics

__all__ = ["OPEN_TIMEOUT_S", "Connections"]

log = logging.getLogger("gearshift.bus")

T = TypeVar("T")

Opened: TypeAlias = PublishBuffer | Subscription

OPEN_TIMEOUT_S = 10.0

#: Who reconnects makes sure of the channel for so long at a time. Seconds.
_AGAIN_S = 1.0

#: Whoever waits for longer is told what for.
_SILENT_S = 1.0


@dataclass(slots=True, weakref_slot=True, eq=False)
class Connections:
    """One open broker. Any thread. Raises what a bus raises.

    Retries that core holds are due by ``clock``.
    """

    loop_type: ClassVar[type[ConsumerLoop]] = ConsumerLoop
    buffer_type: ClassVar[type[PublishBuffer]] = PublishBuffer

    backend: Backend
    name: str
    topology: Topology
    hooks: Hooks
    clock: Callable[[], float] = time.monotonic
    statistics: StatisticsRegistry = field(default_factory=StatisticsRegistry)
    _consuming: list[Opened] = field(default_factory=list)
    _producing: list[Opened] = field(default_factory=list)
    _groups: dict[str, dict[str, None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pid: int = field(default_factory=os.getpid)
    _log: LimitedLog = field(default_factory=lambda: LimitedLog(log, burst=1, period_s=SAY_AGAIN_S))

    def failures(self, channel: str | None) -> ErrorTranslator:
        """Translates drivers' errors for ``channel``."""
        return ErrorTranslator(self.backend, self.name, channel)

    @contextlib.contextmanager
    def admin(
        self, channel: str | None, timeout_s: float = OPEN_TIMEOUT_S
    ) -> Iterator[AdminDriver]:
        """An admin driver for one piece of work."""
        admin = self._connect(self.backend.admin, channel, timeout_s)
        try:
            with self.failures(channel).raised():
                yield admin
        finally:
            admin.close()

    def ask(
        self,
        channel: str | None,
        question: Callable[[AdminDriver], T],
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> T:
        """The answer to a question that may be asked twice: it changes nothing, or only once.

        Asked again, over a new connection, while the broker cannot be reached or is not ready: one
        that has just started refuses for a while. Raises ConnectionFailed after ``timeout_s``.
        """

        def asked() -> T:
            with contextlib.closing(self.backend.admin()) as admin:
                return question(admin)

        return self._connect(asked, channel, timeout_s)

    def ensure(self, spec: ChannelSpec, create: bool | None, timeout_s: float) -> Capabilities:
        """Make sure of the channel, and say what its server gives there."""
        with self._lock:
            self._groups.setdefault(spec.name, {}).update(dict.fromkeys(spec.groups))

        def ensured(admin: AdminDriver) -> Capabilities:
            self.topology.ensure(admin, spec, create=create)
            return admin.capabilities(spec, self.topology.capabilities(spec))

        return self.ask(spec.name, ensured, timeout_s)

    def with_opened_groups(self, spec: ChannelSpec) -> ChannelSpec:
        """``spec`` with the groups that were opened here although the settings do not list them."""
        with self._lock:
            groups = {**dict.fromkeys(spec.groups), **self._groups.get(spec.name, {})}
        return replace(spec, groups=tuple(groups))

    def buffer(self, spec: ChannelSpec, create: bool | None, timeout_s: float) -> PublishBuffer:
        """Connect for publishing to a channel that was made sure of with ``create``."""
        published = self.topology.published(spec)
        buffer = self.buffer_type(
            lambda: self.backend.producer(spec),
            self.failures(spec.name),
            on_reconnect=lambda: self.ensure(published, create, timeout_s=_AGAIN_S),
            on_connection=partial(self.hooks.listeners.connection, spec.name, None),
            open_timeout_s=timeout_s,
        )
        self.statistics.add(buffer)
        return buffer

    def dead_letters(
        self, source: ChannelSpec, group: str, largest_bytes: int, timeout_s: float
    ) -> DeadLetters | None:
        """The declared dead letters of ``group``; None if the settings switch them off.

        ``largest_bytes`` is the largest message that ``source`` can hold.
        """
        spec = self.topology.dead_letter_spec(source)
        if spec is None:
            return None
        spec = replace(spec, largest_bytes=largest_bytes)
        self.topology.capabilities(spec)
        self.ensure(spec, True, timeout_s)
        return DeadLetters(
            lambda: self.buffer(spec, True, timeout_s), channel=source.name, group=group
        )

    def subscribe(
        self,
        spec: ConsumerSpec,
        window: DeliveryWindow,
        policy: ConsumerPolicy,
        create: bool | None,
        timeout_s: float,
    ) -> Subscription:
        """Connect for receiving from a channel that was made sure of with ``create``."""
        shared = SharedWindow(window, clock=self.clock)
        loop = self._consumer_loop(spec, shared, create, timeout_s)
        loop.start()
        subscription = Subscription(loop, UserSide(shared), policy, self.hooks.listeners)
        self.remember(subscription)
        return subscription

    def _consumer_loop(
        self, spec: ConsumerSpec, shared: SharedWindow, create: bool | None, timeout_s: float
    ) -> ConsumerLoop:
        """The loop that will receive for a consumer, not yet started."""

        def connect() -> Receiver:
            if spec.channel.semantics is Semantics.QUEUE:
                return QueueReceiver(shared, lambda: self.backend.queue_consumer(spec))
            return LogReceiver(shared, lambda events: self.backend.log_consumer(spec, events))

        return self.loop_type(
            connect,
            shared,
            self.failures(spec.channel.name),
            name=spec.member,
            on_reconnect=lambda: self.ensure(spec.channel, create, timeout_s=_AGAIN_S),
            on_connection=partial(self.hooks.listeners.connection, spec.channel.name, spec.group),
            open_timeout_s=timeout_s,
        )

    def remember(self, opened: Opened) -> None:
        """Close it with everything else, unless it is closed before."""
        kind = self._producing
        if isinstance(opened, Subscription):
            kind = self._consuming
            self.statistics.add(opened)
        with self._lock:
            kind[:] = [item for item in kind if not item.closed]
            kind.append(opened)

    def close(self, timeout_s: float = 30.0) -> None:
        """Close all consumers, then all producers, then the backend. Not in a fork's child."""
        if os.getpid() != self._pid:
            return  # the connections are the parent's
        for opened in (*self._consuming, *self._producing):
            opened.close(timeout_s)
        with contextlib.suppress(GearshiftError):
            self.backend.close()
        self.hooks.close()

    def _connect(self, connect: Callable[[], T], channel: str | None, timeout_s: float) -> T:
        waiting = threading.Timer(_SILENT_S, self._tell, (channel, timeout_s))
        waiting.daemon = True
        if timeout_s > _SILENT_S:  # who reconnects tries for a moment, again and again
            waiting.start()
        try:
            answer = connect_until(
                connect,
                self.failures(channel),
                stop=threading.Event(),
                timeout_s=timeout_s,
                on_failure=self._not_yet,
            )
        finally:
            waiting.cancel()
        return cast(T, answer)  # not None for want of an answer: nobody sets that event

    def _not_yet(self, failure: GearshiftError) -> None:
        if failure.retryable:  # any other is the answer
            self._log.info("not connected yet: %s", failure)

    def _tell(self, channel: str | None, timeout_s: float) -> None:
        """Say what is waited for: a client may take long over a server that does not answer."""
        servers = ", ".join(f"{host}:{port}" for host, port in self.backend.endpoints())
        place = f"{self.name}/{channel}" if channel else self.name
        self._log.warning("%s: waiting for %s, up to %g s", place, servers or "the file", timeout_s)
