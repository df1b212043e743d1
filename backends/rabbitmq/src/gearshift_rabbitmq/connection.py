"""One AMQP connection and its loop, driven step by step by the one thread that owns it.

pika's connections are callback machines: whoever runs their loop gets the callbacks. A `Link` is
such a connection together with its loop; nothing happens on it except inside `step`, `wait`, `Rpc`
and `close`, so a Link needs no lock. It may be handed to another thread as a whole; only `wake`
may be called from any thread.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pika
from pika import exceptions
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.frame import Heartbeat, Method
from pika.spec import Basic

from gearshift_rabbitmq.errors import most_telling, speaks_of_its_node
from gearshift_rabbitmq.nodes import Address, Nodes
from gearshift_rabbitmq.quiet import OURS, hush
from gearshift_rabbitmq.reading import frames
from gearshift_rabbitmq.settings import RabbitSettings

__all__ = ["RPC_TIMEOUT_S", "Link", "Rpc", "unsubscribe"]

logger = logging.getLogger("gearshift.rabbitmq.connection")

#: The longest wait for one answer of the broker.
RPC_TIMEOUT_S = 5.0

#: With the usual ``heartbeat_s`` a connection is given up after this silence. Seconds.
_USUAL_SILENCE_S = 15.0

#: How much of ``connect_timeout_s`` a name may take to look up while others are known.
_NAMES_SHARE = 0.25

#: A turn of the loop that ends so much too late was not waiting for the broker.
_STOOD_STILL_S = 0.5

#: Bytes gathered before they become one write.
_CHUNK = 64 * 1024


class _Connection(pika.SelectConnection):  # type: ignore[misc]
    """pika's connection with two changes at its adapter seams, and a public abort.

    Writes between ``cork`` and ``uncork`` leave as a few large pieces: pika sends every frame by
    its own system call, three for a message. Reading goes on where pika's decoder raises (see
    ``reading``).
    """

    _corked: list[bytes] | None = None
    _frame_buffer: bytes

    def cork(self) -> None:
        self._corked = []

    def uncork(self) -> None:
        pieces, self._corked = self._corked or [], None
        if pieces and self._transport is not None:
            super()._adapter_emit_data(b"".join(pieces))

    def abort(self, reason: Exception) -> None:
        """Drop the socket without a farewell; the close callback gets ``reason``."""
        if not (self.is_closed or self._transport is None):
            self._terminate_stream(reason)

    def unsent_bytes(self) -> int:
        return self._get_write_buffer_size() if self._transport is not None else 0

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._corked is None:
            super()._adapter_emit_data(data)
        else:
            self._corked.append(data)

    def _on_data_available(self, data: bytes) -> None:
        if not self.is_open:
            super()._on_data_available(data)
            return
        buffer = self._frame_buffer + data if self._frame_buffer else data
        self._frame_buffer = b""
        start = 0
        for end, frame in frames(buffer):
            self.bytes_received += end - start
            start = end
            if type(frame) is not Heartbeat and (
                type(frame) is not Method or type(frame.method) is Basic.Deliver
            ):
                # Content belongs to its AMQP channel; nobody else can have asked for it.
                self.frames_received += 1
                self._deliver_frame_to_channel(frame)
            else:
                self._process_frame(frame)
        self._frame_buffer = buffer[start:]

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = 65536
        super()._proto_connection_made(transport)


class Link:
    """A connection to the first node that answers. Made open, or not at all."""

    def __init__(self, settings: RabbitSettings, purpose: str, nodes: Nodes | None = None) -> None:
        """Connect within ``connect_timeout_s``, trying every address of every node in the order
        of ``nodes``. Raises pika's error of the node that said most."""
        hush()
        self.loop = IOLoop()
        self.loop.activate_poller()
        self.error: Exception | None = None
        self.blocked: str | None = None
        self.connection: _Connection
        self._nodes = nodes or Nodes()
        self._address: Address | None = None
        #: Whether there is another node to go to if this one is alive and does nothing.
        self.has_other_nodes = False
        self._opened = False
        self._gone = False
        self._bytes_heard = 0
        self._heard_at = time.monotonic()
        self._heartbeat_s = settings.heartbeat_s
        self._silence_s = settings.heartbeat_s * 1.5
        self._allowed_s = max(0.0, self._silence_s - _USUAL_SILENCE_S)
        self._turned_at = time.monotonic()
        self._stood_still_at = -math.inf
        try:
            self._connect(settings, purpose)
        except BaseException:
            self._let_go()
            raise

    # ── the loop ─────────────────────────────────────────────────────────────────────────────

    def step(self, timeout_s: float) -> None:
        """Serve the connection once: wait up to ``timeout_s`` for anything, and handle it.

        Raises the reason once the connection is lost, closed by the broker, or silent for longer
        than one and a half heartbeats.
        """
        self._turn(timeout_s)
        if self.error is not None:
            self.leave_node()
            raise self.error
        self._check_silence()

    def wait(self, done: Callable[[], object], timeout_s: float, what: str) -> None:
        """Serve the connection until ``done()``; TimeoutError, naming ``what``, at the end."""
        deadline = time.monotonic() + timeout_s
        while not done():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"no answer to {what} within {timeout_s:g} s")
            self.step(remaining)

    def leave_node(self) -> None:
        """Have the next connections try other nodes first: this one does not do its work."""
        if self._address is not None:
            self._nodes.failed(self._address)

    @property
    def heard_at(self) -> float:
        """When the broker last sent anything; later by what ``heartbeat_s`` allows it to be silent
        beyond the usual, for that says nothing."""
        return self._heard_at + self._allowed_s

    @property
    def stood_still(self) -> bool:
        """True if this process, or the thread that serves this connection, has just stood still
        for longer than a heartbeat, so that the loss of the connection may be its own doing."""
        return time.monotonic() - self._stood_still_at < self._heartbeat_s

    def linger(self, seconds: float) -> None:
        """Serve the connection for ``seconds``."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.step(left)

    def wake(self) -> None:
        """Make a running or coming ``step`` return soon. Any thread, also after close."""
        self.loop.add_callback_threadsafe(_nothing)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What is written inside leaves together. Not reentrant."""
        self.connection.cork()
        try:
            yield
        finally:
            self.connection.uncork()

    # ── closing ──────────────────────────────────────────────────────────────────────────────

    def close(self, timeout_s: float) -> None:
        """Say goodbye within ``timeout_s``, else drop the socket. Idempotent, never raises."""
        deadline = time.monotonic() + timeout_s
        try:
            if not self._gone and self.connection.is_open and self.blocked is None:
                self.connection.close()
                while not self.connection.is_closed and time.monotonic() < deadline:
                    self._turn(max(0.0, deadline - time.monotonic()))
        except Exception as error:
            logger.debug("closing: %r", error)
        self._let_go()

    def _let_go(self) -> None:
        """Free socket and loop whatever state they are in. Does not wait for the broker."""
        if self._gone:
            return
        self._gone = True
        connection = getattr(self, "connection", None)
        try:
            if connection is not None and not connection.is_closed:
                _abandon(connection)
                for _ in range(10):  # pika ends a stream through a few callbacks of its loop
                    if connection.is_closed:
                        break
                    self._turn(0.01)
        except Exception as error:
            logger.debug("letting go: %r", error)
        finally:
            self.loop.close()

    # ── inside ───────────────────────────────────────────────────────────────────────────────

    def _connect(self, settings: RabbitSettings, purpose: str) -> None:
        deadline = time.monotonic() + settings.connect_timeout_s
        addresses, failures = self._resolved(settings)
        order = self._nodes.in_order(addresses)
        self.has_other_nodes = len(order) > 1
        for number, address in enumerate(order):
            share = max(0.5, (deadline - time.monotonic()) / (len(order) - number))
            try:
                self._connect_to(settings, address, purpose, share)
            except Exception as error:
                failures.append(error)
                self._nodes.failed(address)
                logger.debug("%s did not take the connection: %s", address, type(error).__name__)
            else:
                self._address = address
                return
        raise most_telling(failures)

    def _resolved(self, settings: RabbitSettings) -> tuple[list[Address], list[Exception]]:
        """All addresses of all nodes, and what became of names that have none.

        All names are asked for at once; those that take long are left out once another is known.
        """
        answers: dict[tuple[str, int], Any] = {}
        services = SelectorIOServicesAdapter(self.loop)
        wanted = dict.fromkeys(settings.endpoints())
        asked = [
            services.getaddrinfo(
                host, port, partial(answers.__setitem__, (host, port)), socktype=socket.SOCK_STREAM
            )
            for host, port in wanted
        ]
        begun_at = time.monotonic()
        while len(answers) < len(wanted):
            waited_s = time.monotonic() - begun_at
            has_one = any(isinstance(answer, list) for answer in answers.values())
            if waited_s > settings.connect_timeout_s * (_NAMES_SHARE if has_one else 1.0):
                break
            self._turn(0.1)
        for question in asked:
            question.cancel()
        addresses: list[Address] = []
        failures: list[Exception] = []
        for host, port in wanted:
            answer = answers.get((host, port), TimeoutError(f"looking up {host!r} takes too long"))
            if isinstance(answer, Exception):
                failures.append(answer)
            else:
                families = list(dict.fromkeys(family for family, *_ in answer))
                addresses += [
                    Address(host, place[0], port, families.index(family))
                    for family, _, _, _, place in answer
                ]
        return list(dict.fromkeys(addresses)), failures

    def _connect_to(
        self, settings: RabbitSettings, address: Address, purpose: str, timeout_s: float
    ) -> None:
        self.error = None
        self.connection = _Connection(
            _parameters(settings, address, purpose, timeout_s),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
            custom_ioloop=self.loop,
        )
        self.connection.add_on_connection_blocked_callback(self._on_blocked)
        self.connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._heard_at = time.monotonic()
        try:
            self.wait(
                lambda: self._opened, timeout_s, f"connecting to {address.host}:{address.port}"
            )
        except BaseException as error:
            if not self.connection.is_closed:
                # Some of pika's assertions do not hold when a handshake is broken off.
                with suppress(Exception):
                    _abandon(self.connection)
                    self._turn(0.0)
                    self._turn(0.0)
            if isinstance(error, ValueError):  # pika asks the socket for its peer, which is gone
                raise ConnectionResetError(errno.ECONNRESET, "it hung up") from error
            raise

    def _turn(self, timeout_s: float) -> None:
        timer = self.loop.call_later(max(0.0, timeout_s), _nothing)
        begun_at = time.monotonic()
        expected_by = begun_at + max(0.0, timeout_s) + _STOOD_STILL_S
        OURS.inside = True
        try:
            self.loop.poll()
            if time.monotonic() > expected_by:
                # This process stood still. Read what came meanwhile before the timers, pika's and
                # ours, take the time without a byte for a silent broker.
                self.loop.poll()
            self.loop.process_timeouts()
        finally:
            OURS.inside = False
            self.loop.remove_timeout(timer)
            late_s = time.monotonic() - expected_by
            if max(late_s, begun_at - self._turned_at) > self._heartbeat_s:
                self._stood_still_at = time.monotonic()
            self._turned_at = time.monotonic()

    def _check_silence(self) -> None:
        now = time.monotonic()
        heard = self.connection.bytes_received
        if heard != self._bytes_heard:
            self._bytes_heard, self._heard_at = heard, now
        elif self._opened and now - self._heard_at > self._silence_s:
            # pika's own check needs up to two heartbeats and ten seconds.
            self.error = exceptions.AMQPHeartbeatTimeout(
                f"the broker has sent nothing for {now - self._heard_at:.1f} s"
            )
            self.leave_node()
            raise self.error

    def _on_open(self, connection: Any) -> None:
        self._opened = True

    def _on_end(self, connection: Any, error: Exception) -> None:
        self.error = error

    def _on_blocked(self, connection: Any, frame: Any) -> None:
        reason = frame.method.reason
        self.blocked = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        logger.warning("the broker takes no messages at present: %r", self.blocked)

    def _on_unblocked(self, connection: Any, frame: Any) -> None:
        self.blocked = None
        logger.info("the broker takes messages again")


class Rpc:
    """An AMQP channel used for one question after another, each waited for.

    A refusal closes an AMQP channel, so take a new Rpc after any error.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reason: Exception | None = None
        self.channel = link.connection.channel(on_open_callback=_nothing)
        self.channel.add_on_close_callback(self._on_close)
        self.wait(lambda: self.channel.is_open, "channel.open")

    def __call__(self, name: str, **arguments: Any) -> Any:
        """Call the method ``name`` of pika's channel and return the broker's answering method.

        Raises ChannelClosedByBroker with the broker's reason, the connection's error, or
        TimeoutError after RPC_TIMEOUT_S.
        """
        answers: list[Any] = []
        getattr(self.channel, name)(callback=answers.append, **arguments)
        self.wait(lambda: answers, name)
        return answers[0].method

    def answers_in(self, timeout_s: float, name: str, **arguments: Any) -> bool:
        """As a call, but False if the answer has not come in time. It may come later: this Rpc
        is of no more use then."""
        answers: list[Any] = []
        getattr(self.channel, name)(callback=answers.append, **arguments)
        with suppress(TimeoutError):
            self._link.wait(lambda: answers or self._reason, timeout_s, name)
        if self._reason is not None:
            raise self._reason
        return bool(answers)

    def consume(self, queue: str, on_message: Callable[..., None], **arguments: Any) -> str:
        """Start consuming and wait until the broker says so; returns the consumer tag."""
        answers: list[Any] = []
        tag = self.channel.basic_consume(queue, on_message, callback=answers.append, **arguments)
        self.wait(lambda: answers, "basic_consume")
        return str(tag)

    def close(self) -> None:
        """Close the AMQP channel without waiting."""
        if self.channel.is_open:
            self.channel.close()

    def wait(self, done: Callable[[], object], what: str) -> None:
        """Wait until ``done``. Raises as a call does."""
        try:
            self._link.wait(lambda: done() or self._reason, RPC_TIMEOUT_S, what)
        except TimeoutError:  # as of a node that is cut off from the others
            self._link.leave_node()
            raise
        if self._reason is not None:
            if speaks_of_its_node(self._reason):
                self._link.leave_node()
            raise self._reason

    def _on_close(self, channel: Any, reason: Exception) -> None:
        self._reason = reason


def unsubscribe(channel: Any, tag: str) -> None:
    """End a subscription without waiting. What was on its way still reaches its callback: pika
    would reject it, and the broker would count that."""
    channel.basic_cancel(tag, callback=_nothing)
    channel._cancelled.discard(tag)


def _parameters(
    settings: RabbitSettings, address: Address, purpose: str, timeout_s: float
) -> pika.ConnectionParameters:
    context = settings.tls_context() if settings.tls else None
    assert settings.password is not None
    return pika.ConnectionParameters(
        host=address.ip,
        port=address.port,
        virtual_host=settings.virtual_host,
        credentials=pika.PlainCredentials(settings.username or "guest", settings.password.reveal()),
        ssl_options=context and pika.SSLOptions(context, settings.tls_server_name or address.host),
        heartbeat=settings.heartbeat_s,
        connection_attempts=1,
        socket_timeout=timeout_s,
        stack_timeout=timeout_s,
        blocked_connection_timeout=None,
        client_properties={
            "connection_name": f"{settings.connection_name} {purpose} pid {os.getpid()}"
        },
    )


def _abandon(connection: _Connection) -> None:
    if connection.is_open or connection.is_closing:
        connection.abort(exceptions.ConnectionClosedByClient(0, "abandoned"))
    else:
        connection.close()


def _nothing(*_: object) -> None:
    """A callback that only makes pika wait for an answer, or its loop return."""
