"""Where each release of RabbitMQ comes from, and how its programs are run."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from native_brokers.apt import apt_install
from native_brokers.cache import cache_folder, one_at_a_time
from native_brokers.errors import BrokerUnavailable
from native_brokers.process import OWN_ACCOUNT, Account, run_or_raise

# Debian's /usr/sbin scripts insist on root and on the system's one log file; those behind do not.
_DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USER = "rabbitmq"
_SUITE = "trixie"
# Mounts of a namespace of their own: they end with its last process, however that ends.
_IN_FOLDER = """
root=$1 data=$2 account=$3; shift 3
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$data" "$root/srv"
exec chroot --userspec="$account" --groups= "$root" "$@"
"""


class Release(ABC):
    """One version of the software. Holds no state; any thread."""

    @abstractmethod
    def install(self) -> None:
        """Obtain it; returns at once if it is there. Raises `BrokerUnavailable`."""

    @abstractmethod
    def prepare(self, directory: Path) -> None:
        """Give the server's user the folder for its data. Raises `BrokerUnavailable`."""

    @abstractmethod
    def seen(self, directory: Path) -> Path:
        """Return the path of `directory` for the release's programs."""

    @abstractmethod
    def argv(self, program: str, directory: Path) -> list[str]:
        """Return the command that runs `program`. Raises `BrokerUnavailable` if it is not there."""

    def account(self) -> Account:
        """Return whom that command is started as."""
        return OWN_ACCOUNT


class SystemRelease(Release):
    """The package of the system that this machine runs: 3.10 on Debian 12."""

    def install(self) -> None:
        """Install the package rabbitmq-server with apt, without starting its service."""
        with one_at_a_time("rabbitmq"):
            if self._scripts() is None:
                apt_install("rabbitmq-server")
            if self._scripts() is None:
                raise BrokerUnavailable("the package rabbitmq-server has no rabbitmq-server")

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
        folder = self._scripts()
        if folder is None:
            raise BrokerUnavailable(
                "RabbitMQ is not installed; run: python -m native_brokers install --only rabbitmq"
            )
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

    @staticmethod
    def _scripts() -> Path | None:
        if (_DEBIAN_SCRIPTS / "rabbitmq-server").exists():
            return _DEBIAN_SCRIPTS
        found = shutil.which("rabbitmq-server")
        return None if found is None else Path(found).parent


class FolderRelease(Release):
    """The package of a later Debian in a folder of the cache, run by chroot: 4.0. Needs root.

    The broker's data folder is /srv in there.
    """

    def install(self) -> None:
        """Make the folder with debootstrap, which takes about a minute."""
        with one_at_a_time(f"rabbitmq-{_SUITE}"):
            root = self._root()
            if root.exists():
                return
            if os.geteuid() != 0:
                raise BrokerUnavailable("RabbitMQ 4 runs in a folder by chroot: only root can")
            if shutil.which("debootstrap") is None:
                apt_install("debootstrap")
            partial = root.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            run_or_raise(
                ["debootstrap", "--variant=minbase", "--include=rabbitmq-server", _SUITE, partial],
                f"debootstrap could not make {partial}",
            )
            partial.rename(root)

    def prepare(self, directory: Path) -> None:
        """The user rabbitmq of the folder owns it; a mount makes it reachable."""
        os.chown(directory, *self._ids())

    def seen(self, directory: Path) -> Path:
        """Always the same, as each command has mounts of its own."""
        return Path("/srv")

    def argv(self, program: str, directory: Path) -> list[str]:
        """Mounts, changes root and user, and becomes `program`: one process id all the way."""
        root = self._root()
        if not root.exists() or os.geteuid() != 0:
            raise BrokerUnavailable(
                "RabbitMQ 4 is not installed; as root run: "
                "python -m native_brokers install --only rabbitmq4"
            )
        user, group = self._ids()
        inside = _DEBIAN_SCRIPTS / program
        found = str(inside) if (root / inside.relative_to("/")).exists() else program
        unshare = ["unshare", "--mount", "--propagation", "private"]
        arguments = [str(root), str(directory), f"{user}:{group}", found]
        return [*unshare, "sh", "-ec", _IN_FOLDER, "sh", *arguments]

    @staticmethod
    def _root() -> Path:
        return cache_folder() / f"rabbitmq-{_SUITE}"

    def _ids(self) -> tuple[int, int]:
        for line in (self._root() / "etc/passwd").read_text().splitlines():
            user, _, uid, gid, *_ = line.split(":")
            if user == _USER:
                return int(uid), int(gid)
        raise BrokerUnavailable(f"no user {_USER} in {self._root()}")


def system_path() -> str:
    """Return a PATH on which the servers' programs are, outside and inside a folder."""
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
