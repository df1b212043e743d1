"""A consumer's sign of life: a key that expires, and whoever finds it gone takes over."""

from __future__ import annotations

import time
from collections.abc import Callable

from redis import Redis

__all__ = ["SignOfLife"]


class SignOfLife:
    """Shown at every turn of a consumer, and while a long command or answer is on its way.

    Used by the consumer's thread alone.
    """

    def __init__(self, connect: Callable[[], Redis], lease_s: float) -> None:
        """``connect`` makes a connection besides, for while the consumer's own is busy."""
        self.lease_ms = round(lease_s * 1000)
        self.showing: Callable[[Redis], None] | None = None  # has the server renew the key
        self._connect = connect
        self._again_at = float("inf")

    def show(self, client: Redis) -> None:
        """Renew it through ``client``. Raises redis-py's errors."""
        assert self.showing is not None, "its consumer is ready"
        self.showing(client)
        self._again_at = time.monotonic() + self.lease_ms / 4000

    def moved(self) -> None:
        """A part of a command or answer has moved: renew the key if that is due."""
        if time.monotonic() >= self._again_at:
            with self._connect() as other:
                self.show(other)
