"""Handlers: plain or async functions that are given the messages of a channel.

::

    app = gearshift.App()

    @app.handler("orders", group="billing", concurrency=8)
    def bill(order: Order) -> None: ...

A handler that returns acks its message. One that raises has it tried again, later and at most
``max_attempts`` times, then it goes to the dead letters; ``Reject`` sends it there at once, and
``Retry`` chooses the delay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gearshift._core.consuming.rate_limit import parse_rate
from gearshift.capabilities import Requirement
from gearshift.errors import UsageError
from gearshift.message import DEFAULT_GROUP
from gearshift.validation import validate_name
from gearshift.worker.call import Call
from gearshift.worker.dependencies import Lifespan
from gearshift.worker.middleware import around_handlers, around_sends
from gearshift.worker.signature import function_name

if TYPE_CHECKING:
    from gearshift.worker.worker import WorkerReport

__all__ = ["App", "Handler"]

_MOST_THREADS = 1_000
_MOST_TASKS = 100_000
_MOST_IN_BATCHES = 10_000

DEFAULT_LINGER_S = 0.2

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function and how it wants its messages."""

    call: Call
    channel: str
    group: str | None
    concurrency: int
    prefetch: int | None
    rate_limit: str | None
    requires: tuple[str, ...]
    timeout_s: float | None = None
    batch: int | None = None
    linger_s: float = DEFAULT_LINGER_S

    @property
    def name(self) -> str:
        """The function's name, channel and group, for logs."""
        where = f"{self.channel}/{self.group or DEFAULT_GROUP}"
        function = self.call.function
        return f"{getattr(function, '__qualname__', function)} on {where}"


@dataclass(slots=True)
class App:
    """A set of handlers, run by ``gearshift run module:app``, ``run`` or a ``Worker``.

    ``plugins`` are called around its messages: see ``gearshift.hooks``. A ``Worker`` needs a bus
    that was opened with them.
    """

    handlers: list[Handler] = field(default_factory=list)
    plugins: Sequence[object] = field(default=(), kw_only=True)
    lifespans: list[Lifespan] = field(default_factory=list, init=False)

    def handler(
        self,
        channel: str,
        *,
        group: str | None = None,
        concurrency: int = 1,
        prefetch: int | None = None,
        rate_limit: str | None = None,
        requires: Sequence[str] = (),
        timeout_s: float | None = None,
        batch: int | None = None,
        linger_s: float | None = None,
    ) -> Callable[[F], F]:
        """Register a function for ``channel`` and ``group``; it stays callable as it is.

        It takes ``(value)``, ``(value, delivery: Delivery)`` in any order, or ``(delivery:
        Delivery)``; the annotation of the value is the type that the body decodes to.
        ``concurrency`` is how many messages a process handles at once: messages of one key one
        after the other, each on a thread, or for async functions each a task of one event loop,
        of which there may be thousands. ``prefetch`` bounds what the process holds, ``rate_limit``
        ("100/s", "30/min", "500/h") how many messages it begins in a time; None is the channel's
        setting (``prefetch`` is then ``concurrency`` at least, and on a queue of soft prefetch,
        such as Kafka's, no more than that). ``requires`` names
        capabilities without which the worker must not start. What takes longer than ``timeout_s``
        has failed: an async handler is cancelled then; a plain one cannot be interrupted, so a
        warning says that it goes on, and its message is retried when it ends.

        With ``batch`` it takes ``list[Order]`` or ``list[Delivery]``: as many messages as there
        are, up to that, at the latest ``linger_s`` (0.2) seconds after the first of them. Returning
        acks all, raising fails all, ``BatchFailed`` names those that failed; what comes again is a
        batch of its own. ``concurrency`` is then a number of batches.

        Raises UsageError, ConfigError and InvalidMessage at import, not when the first message
        comes.
        """
        validate_name(channel, "channel")
        if group is not None:
            validate_name(group, "group")
        if not isinstance(concurrency, int) or not 1 <= concurrency <= _MOST_TASKS:
            raise UsageError(
                f"concurrency {concurrency!r} is out of range", hint=f"use 1 to {_MOST_TASKS}"
            )
        if rate_limit is not None:
            parse_rate(rate_limit)
        if timeout_s is not None and not timeout_s > 0:
            raise UsageError(f"timeout_s {timeout_s!r} is out of range", hint="use more than 0")
        Requirement.parse_all(requires)
        _check_batch(batch, linger_s, concurrency, prefetch)

        def register(function: F) -> F:
            call = Call.of(function, is_batch=batch is not None, lifespans=self.lifespans)
            needs = tuple(requires)
            if concurrency > _MOST_THREADS and not call.is_async:
                raise UsageError(
                    f"concurrency {concurrency} is too much for a plain function, whose messages "
                    "have a thread each",
                    hint=f"use 1 to {_MOST_THREADS}, or an async function",
                )
            handler = Handler(
                call, channel, group, concurrency, prefetch, rate_limit, needs, timeout_s, batch,
                DEFAULT_LINGER_S if linger_s is None else linger_s,
            )  # fmt: skip
            self._add(handler)
            return function

        return register

    def lifespan(self, function: F) -> F:
        """Register a generator function that yields a state of the service.

        It is entered once in each process, before the first message, and left after the drain; an
        async one on the event loop of the async handlers. What it yields is given to the handlers
        that are registered after it: to parameters of its type, ``Iterator[Pool]``, or, if that is
        a TypedDict, to parameters of its names. Several are entered in their order. Raises
        UsageError. What it raises at the start ends the process.
        """
        self._add_lifespan(Lifespan.of(function))
        return function

    def around(self, function: F) -> F:
        """Register a generator function around the handlers: it yields once, where they run.

        It may take ``deliveries``, ``delivery`` and ``handler``: see ``gearshift.hooks.specs``. One
        that is async is around async handlers alone. The first registered is the outermost, inside
        of ``plugins``. Raises UsageError.
        """
        self.plugins = (*self.plugins, around_handlers(function))
        return function

    def around_send(self, function: F) -> F:
        """Register a function of each message that is sent, an ``hooks.Outgoing``.

        If it yields, it is given the Receipt or the error there. One that is async is awaited by
        coroutines that send, before the message is handed over; threads do not call it.
        """
        self.plugins = (*self.plugins, around_sends(function))
        return function

    def include(self, other: App) -> None:
        """Take on the handlers, plugins and lifespans that ``other`` has now.

        A plugin or lifespan that both have is taken once. Raises UsageError for two handlers of one
        channel and group, and two lifespans that provide the same; nothing is taken on then.
        """
        merged = App(plugins=self.plugins)
        merged.lifespans.extend(self.lifespans)
        merged.handlers.extend(self.handlers)
        for lifespan in other.lifespans:
            if lifespan not in self.lifespans:
                merged._add_lifespan(lifespan)
        for handler in other.handlers:
            merged._add(handler)
        theirs = [one for one in other.plugins if all(one is not mine for mine in self.plugins)]
        self.plugins = (*self.plugins, *theirs)
        self.handlers[:], self.lifespans[:] = merged.handlers, merged.lifespans

    def _add(self, handler: Handler) -> None:
        place = (handler.channel, handler.group or DEFAULT_GROUP)
        for other in self.handlers:
            if place == (other.channel, other.group or DEFAULT_GROUP):
                raise UsageError(
                    f"{handler.name} would share its messages with {other.name}",
                    hint="give one of them another group",
                )
        self.handlers.append(handler)

    def _add_lifespan(self, lifespan: Lifespan) -> None:
        for other in self.lifespans:
            same = sorted(lifespan.names.keys() & other.names.keys())
            if same or (lifespan.type is not None and lifespan.type is other.type):
                what = ", ".join(same) or function_name(lifespan.type)
                raise UsageError(
                    f"lifespans {other.name} and {lifespan.name} both provide {what}",
                    hint="leave one of them out",
                )
        self.lifespans.append(lifespan)

    def run(
        self,
        config_path: str | Path | None = None,
        *,
        profile: str | None = None,
        metrics: str | None = None,
    ) -> WorkerReport:
        """Run the handlers in this process until SIGTERM or SIGINT, then drain for up to 30 s.

        As ``gearshift run`` with one process, and with the same arguments. Blocks; main thread
        only. Returns what was done. Raises ConfigError, UsageError, what ``gearshift.open`` and
        ``Bus.consumer`` raise, and what has ended a consumer for good.
        """
        from gearshift.telemetry.server import parse_address  # all of these know App
        from gearshift.worker.service import Service, serve
        from gearshift.worker.signals import StopRequest

        address = None if metrics is None else parse_address(metrics)
        with StopRequest() as stop:
            return serve(self, Service(config_path, profile, address), stop)


def _check_batch(
    batch: int | None, linger_s: float | None, concurrency: int, prefetch: int | None
) -> None:
    """Raise UsageError for batches that cannot be gathered."""
    if batch is None:
        if linger_s is not None:
            raise UsageError("linger_s is for batches", hint="batch=100, linger_s=0.2")
        return
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UsageError(f"batch {batch!r} is out of range", hint="use 1 or more")
    if linger_s is not None and not 0 <= linger_s < math.inf:
        raise UsageError(f"linger_s {linger_s!r} is out of range", hint="use 0 or more")
    if batch * concurrency > _MOST_IN_BATCHES:
        raise UsageError(
            f"batch {batch} with concurrency {concurrency} is more than {_MOST_IN_BATCHES} "
            "messages at once",
            hint="use smaller batches, fewer of them at once, or more processes",
        )
    if prefetch is not None and prefetch < batch:
        raise UsageError(
            f"prefetch {prefetch} is less than batch {batch}, which would never be full",
            hint="leave prefetch out: it follows the batch",
        )
