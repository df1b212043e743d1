"""What a bus has open, and how it opens more.

Knows nothing of the bus, and so do the threads that hold this: a bus that is dropped without
``close`` is noticed, though its threads still run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from gearshift.capabilities import Capabilities
from gearshift.consumer import Subscription
from gearshift.driver import AdminDriver, Backend, ChannelSpec, ConsumerSpec
from gearshift.errors import GearshiftError
from gearshift.failures import Failures
from gearshift.handling.dead_letters import DeadLetters
from gearshift.inbox import Inbox
from gearshift.message import Semantics
from gearshift.outbox import Outbox
from gearshift.pump import LogConnect, Pump, QueueConnect
from gearshift.reconnect import connect_until
from gearshift.tally import Tally
from gearshift.topology import Topology

__all__ = ["OPEN_TIMEOUT_S", "Connections"]

log = logging.getLogger("gearshift.bus")

T = TypeVar("T")

Opened: TypeAlias = Outbox | Subscription

OPEN_TIMEOUT_S = 10.0


@dataclass(slots=True, weakref_slot=True, eq=False)
class Connections:
    """One open broker. Any thread. Raises what a bus raises."""

    backend: Backend
    name: str
    topology: Topology
    tally: Tally = field(default_factory=Tally)
    _consuming: list[Opened] = field(default_factory=list)
    _producing: list[Opened] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pid: int = field(default_factory=os.getpid)

    def failures(self, channel: str | None) -> Failures:
        """Translates drivers' errors for ``channel``."""
        return Failures(self.backend, self.name, channel)

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

    def ensure(self, spec: ChannelSpec, create: bool | None, timeout_s: float) -> Capabilities:
        """Make sure of the channel, and say what its server gives there.

        A broker that has just started may refuse for a while.
        """

        def ensured() -> Capabilities:
            with contextlib.closing(self.backend.admin()) as admin:
                self.topology.ensure(admin, spec, create=create)
                return admin.capabilities(spec, self.topology.capabilities(spec))

        return self._connect(ensured, spec.name, timeout_s)

    def outbox(self, spec: ChannelSpec, timeout_s: float) -> Outbox:
        """Connect for publishing to a channel."""
        outbox = Outbox(
            lambda: self.backend.producer(spec),
            self.failures(spec.name),
            channel=spec.name,
            open_timeout_s=timeout_s,
        )
        self.tally.add(outbox)
        return outbox

    def dead_letters(self, source: ChannelSpec, group: str, timeout_s: float) -> DeadLetters | None:
        """Where ``group`` puts what it gives up on, declared; None if the settings say so."""
        spec = self.topology.dead_letter_spec(source)
        if spec is None:
            return None
        self.topology.capabilities(spec)
        self.ensure(spec, True, timeout_s)
        return DeadLetters(lambda: self.outbox(spec, timeout_s), channel=source.name, group=group)

    def pump(self, spec: ConsumerSpec, inbox: Inbox, create: bool | None, timeout_s: float) -> Pump:
        """What will receive for a consumer, not yet started."""
        source: QueueConnect | LogConnect
        if spec.channel.semantics is Semantics.QUEUE:
            source = QueueConnect(lambda: self.backend.queue_consumer(spec))
        else:
            source = LogConnect(lambda events: self.backend.log_consumer(spec, events))
        return Pump(
            source,
            inbox,
            self.failures(spec.channel.name),
            name=spec.member,
            on_reconnect=lambda: self.ensure(spec.channel, create, timeout_s=1.0),
            open_timeout_s=timeout_s,
        )

    def remember(self, opened: Opened) -> None:
        """Close it with everything else, unless it is closed before."""
        kind = self._producing
        if isinstance(opened, Subscription):
            kind = self._consuming
            self.tally.add(opened)
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

    def _connect(self, connect: Callable[[], T], channel: str | None, timeout_s: float) -> T:
        driver = connect_until(
            connect,
            self.failures(channel),
            stop=threading.Event(),
            timeout_s=timeout_s,
            on_failure=lambda failure: log.info("not connected yet: %s", failure),
        )
        assert driver is not None  # nobody sets that event
        return driver
