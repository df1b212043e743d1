"""The hooks that plugins implement; each of them, as many plugins as there are.

Order: the plugins that the application gives come first, in its order, then the installed ones by
name. ``hookimpl(tryfirst=True)`` and ``hookimpl(trylast=True)`` go before and behind all others.
Around a handler the first is the outermost.

Threads: whichever a message is on, several at once; a plugin guards its own state. No hook may
block for long: the message waits for it, and so does whoever sends or settles it.

Errors: what a plugin raises in ``gearshift_handle`` or ``gearshift_handle_async`` counts as raised
by the handler, so the message is retried, or moved to the dead letters, and never lost. What it
raises in any other hook is logged, a few lines a minute, and changes nothing: the message goes on,
and the other plugins are called.

A plugin takes the parameters that it names; later versions may offer more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from gearshift.delivery import BaseDelivery, Delivery
from gearshift.driver.plugin import hookspec
from gearshift.errors import GearshiftError
from gearshift.message import Headers, HeaderValue, Message, SendResult

__all__ = ["ConnectionEvent", "Outgoing"]


@dataclass(slots=True)
class Outgoing:
    """A message that is about to be sent; assign another ``message`` to change it."""

    backend: str
    channel: str
    message: Message
    callbacks: list[Callable[[SendResult], object]] = field(default_factory=list)

    def set_header(self, name: str, value: HeaderValue) -> None:
        """Give the message this header, in place of those with its name."""
        others = tuple(pair for pair in self.message.headers.pairs if pair[0] != name)
        self.message = self.message.replace(headers=Headers((*others, (name, value))))

    def on_result(self, callback: Callable[[SendResult], object]) -> None:
        """Call ``callback`` once with the Receipt, or with the error that the sender gets.

        That is on a thread of the producer, and may be after ``send`` has returned; ``flush`` waits
        for it. The callbacks of a message run in the reverse order.
        """
        self.callbacks.append(callback)


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """What happened to a connection of a consumer (``group``) or a producer (no group).

    "lost": ``error`` says why; a new one is made. "back": there is a new one. "draining": the
    consumer hands out nothing more, because it is told to stop.
    """

    kind: Literal["lost", "back", "draining"]
    channel: str
    group: str | None = None
    error: GearshiftError | None = None


@hookspec
def gearshift_opened(bus: Any) -> None:
    """Called once for each ``gearshift.Bus`` that is opened, before it has connected.

    A plugin that keeps it keeps it weakly: a bus that nobody else has is to be closed.
    """


@hookspec
def gearshift_send(outgoing: Outgoing) -> None:
    """Called for each message that is sent, before it is handed to the broker's client.

    On the thread of ``send``, ``send_many`` or ``submit``, which may run an event loop. A change
    that cannot be sent (too large, say) is dropped and logged. Not called for what Gearshift sends
    itself: retries and dead letters keep the message's headers.
    """


@hookspec
async def gearshift_send_async(outgoing: Outgoing) -> None:
    """Awaited for each message that a coroutine sends: implement it as an async function.

    In the sender's task, one message after the other, before ``gearshift_send``; within the
    ``timeout_s`` of the send. An async generator is awaited up to its ``yield``, which gives the
    Receipt or the error; if the sender is cancelled it is closed there. Changes are as for
    ``gearshift_send``. Not called for what threads send.
    """


@hookspec
def gearshift_received(delivery: BaseDelivery[Any]) -> None:
    """Called for each delivery that a consumer hands out, on the thread that receives it."""


@hookspec(firstresult=True)
def gearshift_handle(
    delivery: Delivery[Any], deliveries: Sequence[Delivery[Any]], handler: Callable[..., Any]
) -> object:
    """Around a handler that a Worker runs: implement it as ``hookimpl(wrapper=True)``.

    ``deliveries`` are those of a batch, or the one; ``delivery`` is that one. An app that has
    handlers of batches refuses a plugin that names only ``delivery``. It is called once for all of
    a batch, as one span is made for it.

    ``yield`` runs the handler, of an async one all of it; it gives what the handler returned and
    raises what it raised. What the wrapper returns or raises takes the place of that. Context
    variables that it sets are seen by the handler. On a worker thread; around an async handler in
    its task, on the event loop, which it must not keep waiting. The delivery is settled afterwards,
    unless the handler has done so.
    """


@hookspec
def gearshift_handle_async(
    delivery: Delivery[Any], deliveries: Sequence[Delivery[Any]], handler: Callable[..., Any]
) -> AbstractAsyncContextManager[Any] | None:
    """Around an async handler: return a context manager in which it is awaited.

    ``delivery`` and ``deliveries`` are as for ``gearshift_handle``.

    Called and entered in the handler's own task, on the event loop that all of a Worker's async
    handlers share, inside of ``gearshift_handle``. ``asyncio.timeout(30)`` will do. It must not
    swallow an error that is not its own: the message would be acked.
    """


@hookspec
def gearshift_settled(
    delivery: BaseDelivery[Any],
    outcome: Literal["ack", "retry", "reject", "stale"],
    reason: str | None,
    took_s: float,
) -> None:
    """Called once a delivery is settled, by whomever, on that thread.

    "stale" is a settlement that came too late: the message will come again. ``took_s`` is for how
    many seconds settling blocked.
    """


@hookspec
def gearshift_retry(
    channel: str,
    group: str,
    message: Message,
    attempt: int,
    max_attempts: int,
    delay_s: float,
    reason: str | None,
) -> None:
    """Called when an attempt has failed and another one follows after ``delay_s`` seconds.

    On the thread that settles, before ``gearshift_settled``.
    """


@hookspec
def gearshift_dead_letter(
    backend: str,
    channel: str,
    group: str,
    message: Message,
    reason: str,
    error: GearshiftError | None,
    delay_s: float,
) -> None:
    """Called when a message was moved to the dead letters, or could not be because of ``error``.

    It is kept then, and tried again after ``delay_s`` seconds. On a thread of the dead letters'
    producer.
    """


@hookspec
def gearshift_connection(event: ConnectionEvent) -> None:
    """Called when a connection is lost or back, or a consumer drains.

    In their order, on one thread of the bus that does nothing else, so it may block; it is a
    little late then.
    """
