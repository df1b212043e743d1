"""Redis, one private server for each object, which writes to disk before it answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.ports import LOOPBACK, require_free
from native_brokers.process import Process
from native_brokers.software import Program, Software

_SERVER = Program("redis-server", "redis-server")
_SETTINGS = {
    "bind": LOOPBACK,
    "appendonly": "yes",
    "appendfsync": "always",
    "save": '""',
    "daemonize": "no",
}


class Redis(Broker):
    """A Redis server of its own, beside any other on the machine, without a password."""

    name: ClassVar[str] = "Redis"
    port_count: ClassVar[int] = 1

    def __init__(
        self, directory: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        """Keep data and log in `directory`, or in a private folder that `stop` removes.

        `settings` are lines of redis.conf that go over the ones chosen here.
        """
        super().__init__(directory)
        self._settings = dict(settings or {})

    @classmethod
    def software(cls) -> tuple[Software, ...]:
        """The system's package."""
        return (_SERVER,)

    @property
    def url(self) -> str:
        """The address of database 0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _launch(self, directory: Path) -> Process:
        require_free(self._ports)
        settings = {"port": str(self.port), "dir": str(directory), **_SETTINGS, **self._settings}
        file = directory / "redis.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        command = [_SERVER.path(), str(file)]
        return Process(command, env=os.environ, directory=directory, log=self.log)

    def _answers(self) -> bool:
        with (
            suppress(OSError),
            socket.create_connection((LOOPBACK, self.port), timeout=2.0) as connection,
        ):
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False
