"""PostgreSQL, which is no broker but a server like them: handlers keep their data in it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.ports import LOOPBACK, require_free
from native_brokers.process import OWN_ACCOUNT, Account, Process
from native_brokers.software import Program, Software

__all__ = ["PostgreSQL"]

_POSTGRES = Program("postgres", "postgresql")
_INITDB = Program("initdb", "postgresql")
_LOGIN = b"\0\0\0\x13\0\x03\0\0user\0test\0\0"  # of protocol 3.0; while it starts, an error follows
_RUN = '[ -e data ] || "$0" -D data -U test --auth=trust --no-sync && exec "$@"'


class PostgreSQL(Broker):
    """A PostgreSQL server of its own, with the user ``test`` and without a password."""

    name: ClassVar[str] = "PostgreSQL"
    port_count: ClassVar[int] = 1

    @classmethod
    def software(cls) -> tuple[Software, ...]:
        """The system's package."""
        return (_POSTGRES, _INITDB)

    @property
    def url(self) -> str:
        """The address of the database that is always there."""
        return f"postgresql://test@{LOOPBACK}:{self.port}/postgres"

    def _launch(self, directory: Path) -> Process:
        require_free(self._ports)
        account = _account()
        if account.user is not None:
            shutil.chown(directory, account.user, account.group)
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = [_POSTGRES.path(), "-D", "data", *options]
        return Process(
            ["/bin/sh", "-c", _RUN, _INITDB.path(), *server],
            env=os.environ, directory=directory, log=self.log, account=account,
        )  # fmt: skip

    def _answers(self) -> bool:
        with (
            suppress(OSError),
            socket.create_connection((LOOPBACK, self.port), timeout=2.0) as connection,
        ):
            connection.sendall(_LOGIN)
            return connection.recv(1) == b"R"
        return False


def _account() -> Account:
    """Whom the server runs as: it refuses root, and its package brings a user."""
    if os.geteuid() != 0:
        return OWN_ACCOUNT
    user = pwd.getpwnam("postgres")
    return Account(user.pw_uid, user.pw_gid)
