"""One AMQP connection and its loop, driven step by step by the thread that owns it at the time.

pika's connections are callback machines: whoever runs their loop gets the callbacks. A `Connection`
is pika's with its loop; nothing happens on it except inside `step`, `wait_for`, `close` and what
calls these, so it needs no lock. It may be handed to another thread as a whole; only `wake` may be
called from any thread.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pika
from pika import exceptions

from gearshift_rabbitmq.errors import most_telling
from gearshift_rabbitmq.nodes import Address, Nodes, resolve
from gearshift_rabbitmq.pika_connection import PikaConnection, PikaLoop
from gearshift_rabbitmq.pika_logging import OURS, hush
from gearshift_rabbitmq.settings import Settings

__all__ = ["Connection", "parameters"]

logger = logging.getLogger("gearshift.rabbitmq.connection")

#: With the usual ``heartbeat_s`` a connection is given up after this silence. Seconds.
_USUAL_SILENCE_S = 15.0

#: A turn of the loop that ends so much too late was not waiting for the broker.
_STOOD_STILL_S = 0.5


class Connection:
    """A connection to the first node that answers. Made open, or not at all."""

    def __init__(self, settings: Settings, purpose: str, nodes: Nodes | None = None) -> None:
        """Connect within ``connect_timeout_s``, trying every address of every node in the order
        of ``nodes``. Raises pika's error of the node that said most."""
        hush()
        self.loop = PikaLoop()
        self.loop.activate_poller()
        self.error: Exception | None = None
        self.blocked: str | None = None
        self.pika: PikaConnection
        self.nodes = nodes or Nodes()
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

    def wait_for(self, done: Callable[[], object], timeout_s: float) -> bool:
        """Serve the connection until ``done()``; False if time ran out."""
        deadline = time.monotonic() + timeout_s
        while not done():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self.step(remaining)
        return True

    def serve(self, seconds: float) -> None:
        """Serve the connection for so long."""
        self.wait_for(lambda: False, seconds)

    def leave_node(self) -> None:
        """Have the next connections try other nodes first: this one does not do its work."""
        if self._address is not None:
            self.nodes.failed(self._address)

    def server(self, name: str) -> str:
        """What the server says of itself: its "product", "version" or "cluster_name"."""
        value: Any = (self.pika.server_properties or {}).get(name, "?")
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

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

    def wake(self) -> None:
        """Make a running or coming ``step`` return soon. Any thread, also after close."""
        self.loop.add_callback_threadsafe(_nothing)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What is written inside leaves together. Not reentrant."""
        self.pika.cork()
        try:
            yield
        finally:
            self.pika.uncork()

    def close(self, timeout_s: float) -> None:
        """Close in order within ``timeout_s``, else drop the socket. Idempotent, never raises."""
        deadline = time.monotonic() + timeout_s
        try:
            if not self._gone and self.pika.is_open and self.blocked is None:
                self.pika.close()
                while not self.pika.is_closed and time.monotonic() < deadline:
                    self._turn(max(0.0, deadline - time.monotonic()))
        except Exception as error:
            logger.debug("closing: %r", error)
        self._let_go()

    def _let_go(self) -> None:
        """Free socket and loop whatever state they are in. Does not wait for the broker."""
        if self._gone:
            return
        self._gone = True
        try:
            self._abandon()
        finally:
            self.loop.close()

    def _abandon(self) -> None:
        with suppress(Exception):  # some of pika's assertions do not hold during a handshake
            if not self.pika.is_closed:
                self.pika.abandon()
            for _ in range(10):  # pika ends a stream through a few callbacks of its loop
                if self.pika.is_closed:
                    break
                self._turn(0.01)

    def _connect(self, settings: Settings, purpose: str) -> None:
        deadline = time.monotonic() + settings.connect_timeout_s
        addresses, failures = resolve(
            settings.endpoints(), self.loop, self._turn, settings.connect_timeout_s
        )
        order = self.nodes.in_order(addresses)
        self.has_other_nodes = len(order) > 1
        for number, address in enumerate(order):
            share = max(0.5, (deadline - time.monotonic()) / (len(order) - number))
            try:
                self._connect_to(settings, address, purpose, share)
            except Exception as error:
                failures.append(error)
                self.nodes.failed(address)
                logger.debug("%s did not take the connection: %s", address, type(error).__name__)
            else:
                self._address = address
                return
        raise most_telling(failures)

    def _connect_to(
        self, settings: Settings, address: Address, purpose: str, timeout_s: float
    ) -> None:
        self.error = None
        self.pika = PikaConnection(
            parameters(settings, address, purpose, timeout_s),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
            custom_ioloop=self.loop,
        )
        self.pika.add_on_connection_blocked_callback(self._on_blocked)
        self.pika.add_on_connection_unblocked_callback(self._on_unblocked)
        self._heard_at = time.monotonic()
        try:
            if not self.wait_for(lambda: self._opened, timeout_s):
                place = f"{address.host}:{address.port}"
                raise TimeoutError(f"no answer to connecting to {place} within {timeout_s:g} s")
        except BaseException as error:
            self._abandon()
            if isinstance(error, ValueError):  # pika asks the socket for its peer, which is gone
                raise ConnectionResetError(errno.ECONNRESET, "it hung up") from error
            raise

    def _turn(self, timeout_s: float) -> None:
        self.loop.most_s = max(0.0, timeout_s)
        begun_at = time.monotonic()
        expected_by = begun_at + max(0.0, timeout_s) + _STOOD_STILL_S
        OURS.inside = True
        try:
            self.loop.poll()
            if time.monotonic() > expected_by:
                # This process stood still. Read what came meanwhile before the timers, pika's and
                # ours, take the time without a byte for a silent broker.
                self.loop.most_s = 0.0
                self.loop.poll()
            self.loop.process_timeouts()
        finally:
            OURS.inside = False
            self._turned_at, last = time.monotonic(), self._turned_at
            if max(self._turned_at - expected_by, begun_at - last) > self._heartbeat_s:
                self._stood_still_at = self._turned_at

    def _check_silence(self) -> None:
        now = time.monotonic()
        heard = self.pika.bytes_received
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


def parameters(
    settings: Settings, address: Address, purpose: str, timeout_s: float
) -> pika.ConnectionParameters:
    """What pika is told of that address; ``purpose`` is seen in the broker's list."""
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


def _nothing(*_: object) -> None:
    """A callback that only makes pika wait for an answer, or its loop return."""
