"""Where each release of RabbitMQ comes from, and how its programs are run."""

from __future__ import annotations

import os
import pwd
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from native_brokers.errors import BrokerUnavailable
from native_brokers.process import OWN_ACCOUNT, Account
from native_brokers.software import Program, Software
from native_brokers.suites import Suite

# Debian's /usr/sbin scripts insist on root and on the system's one log file; those behind do not.
_DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_SERVER = Program("rabbitmq-server", "rabbitmq-server", "a minute")
_USER = "rabbitmq"


class Release(ABC):
    """One version of the software. Holds no state; any thread."""

    @property
    @abstractmethod
    def software(self) -> Software:
        """What it is fetched as."""

    @abstractmethod
    def prepare(self, directory: Path) -> None:
        """Give the server's user the folder for its data. Raises `BrokerUnavailable`."""

    @abstractmethod
    def seen(self, directory: Path) -> Path:
        """Return the path of `directory` for the release's programs."""

    @abstractmethod
    def argv(self, program: str, directory: Path) -> list[str]:
        """Return the command that runs `program`. Raises `NotInstalled` if it is not there."""

    def account(self) -> Account:
        """Return whom that command is started as."""
        return OWN_ACCOUNT


class SystemRelease(Release):
    """The package of the system that this machine runs: 3.10 on Debian 12."""

    @property
    def software(self) -> Software:
        """The package rabbitmq-server."""
        return _SERVER

    def prepare(self, directory: Path) -> None:
        """Root's server runs as the user rabbitmq, who must be able to reach the folder."""
        account = self.account()
        if account.user is not None and account.group is not None:
            os.chown(directory, account.user, account.group)
        found = subprocess.run(
            ["test", "-w", str(directory)],
            cwd="/",
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )
        if found.returncode != 0:
            raise BrokerUnavailable(
                f"the user {_USER}, whom the server runs as, cannot reach {directory}; "
                "name a folder below ones that everybody may enter, or none for a private one"
            )

    def seen(self, directory: Path) -> Path:
        """The same: nothing stands between."""
        return directory

    def argv(self, program: str, directory: Path) -> list[str]:
        """Found beside the other scripts, or on the PATH (epmd)."""
        folder = _DEBIAN_SCRIPTS if _DEBIAN_SCRIPTS.exists() else Path(_SERVER.path()).parent
        script = folder / program
        return [str(script) if script.exists() else program]

    def account(self) -> Account:
        """The package's user when root asks: a server has no business running as root."""
        if os.geteuid() != 0:
            return OWN_ACCOUNT
        try:
            user = pwd.getpwnam(_USER)
        except KeyError:
            return OWN_ACCOUNT
        return Account(user.pw_uid, user.pw_gid)


class FolderRelease(Release):
    """The package of a later Debian in a folder of the cache. Needs root.

    The broker's data folder is /srv in there.
    """

    def __init__(self, suite: str) -> None:
        """Take the package from the Debian suite of that name."""
        self._suite = Suite(suite, f"rabbitmq-{suite}", ("rabbitmq-server",))

    @property
    def software(self) -> Software:
        """The folder."""
        return self._suite

    def prepare(self, directory: Path) -> None:
        """The user rabbitmq of the folder owns it; a mount makes it reachable."""
        os.chown(directory, *self._ids())

    def seen(self, directory: Path) -> Path:
        """Always the same, as each command has mounts of its own."""
        return Path("/srv")

    def argv(self, program: str, directory: Path) -> list[str]:
        """Mounts, changes root and user, and becomes `program`: one process id all the way."""
        user, group = self._ids()
        inside = _DEBIAN_SCRIPTS / program
        found = str(inside) if (self._suite.root / inside.relative_to("/")).exists() else program
        return self._suite.argv(found, mounts={directory: "/srv"}, account=f"{user}:{group}")

    def _ids(self) -> tuple[int, int]:
        for line in (self._suite.root / "etc/passwd").read_text().splitlines():
            user, _, uid, gid, *_ = line.split(":")
            if user == _USER:
                return int(uid), int(gid)
        raise BrokerUnavailable(f"no user {_USER} in {self._suite.root}")
