"""Connections on which what still moves has time.

redis-py gives up a command whose bytes are not all sent within the socket's timeout, and an answer
that has not begun by then. Over a slow link a large message could never be sent, again and again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from redis.connection import Connection, SSLConnection

from gearshift.driver.helpers import SLOWEST_BYTES_PER_S, Wrapper

__all__ = ["MovingConnection", "MovingTlsConnection"]

_CHUNK = 65536


class _MovingSocket(Wrapper):
    """A socket whose timeout is for each chunk, and for an answer longer by what was sent before.

    ``on_moved`` is called after each chunk of either direction.
    """

    def __init__(self, inner: socket.socket, on_moved: Callable[[], object]) -> None:
        super().__init__(inner)
        self._on_moved = on_moved
        self._sent_by = 0.0  # what was written has arrived by then, also over the slowest link

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.inner.send(view[:_CHUNK]) :]
            self._on_moved()
        self._sent_by = max(self._sent_by, time.monotonic()) + len(data) / SLOWEST_BYTES_PER_S

    def recv(self, *arguments: Any) -> bytes:
        received: bytes = self._read(self.inner.recv, *arguments)
        return received

    def recv_into(self, *arguments: Any) -> int:
        count: int = self._read(self.inner.recv_into, *arguments)
        return count

    def _read(self, read: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                found = read(*arguments)
            except TimeoutError:
                if time.monotonic() >= self._sent_by:
                    raise
            else:
                self._on_moved()
                return found


class _Moving:
    """Mixin: replaces the socket that redis-py has connected."""

    def __init__(self, *, on_moved: Callable[[], object], **settings: Any) -> None:
        super().__init__(**settings)
        self._on_moved = on_moved

    def _connect(self) -> _MovingSocket:
        connected: socket.socket = super()._connect()  # type: ignore[misc]
        return _MovingSocket(connected, self._on_moved)


class MovingConnection(_Moving, Connection):
    """In plain text."""


class MovingTlsConnection(_Moving, SSLConnection):
    """Encrypted."""
