"""What brokers and their tests need on this machine: known to be there or not, fetched once."""

from __future__ import annotations

import os
import shutil
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from native_brokers.apt import APT_INSTALL, apt_install
from native_brokers.cache import one_at_a_time
from native_brokers.errors import NotInstalled

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Software(ABC):
    """Something that may have to be fetched. Immutable; any thread."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What is fetched and how long that takes, for people."""

    @abstractmethod
    def is_there(self) -> bool:
        """Tell whether it is complete on this machine; does not block."""

    @abstractmethod
    def _fetch(self) -> None:
        """Fetch it; called for one process at a time."""

    @property
    @abstractmethod
    def _lock(self) -> str:
        """The name of the lock that is held while it is fetched."""

    def install(self) -> None:
        """Fetch it, after a line on standard error that says so; returns at once if it is there.

        Blocks meanwhile; processes that need it at the same time wait for one another. Raises
        `NotInstalled` if this user may not fetch it, and `BrokerUnavailable` if that fails.
        """
        if self.is_there():
            return
        with one_at_a_time(self._lock):
            if not self.is_there():
                print(f"native_brokers: fetching {self.title}", file=sys.stderr, flush=True)
                self._fetch()


@dataclass(frozen=True)
class Program(Software):
    """A program of the system, which one of Debian's packages brings."""

    name: str
    package: str
    takes: str = "half a minute"

    @property
    def title(self) -> str:
        """See `Software`."""
        return f"{self.name} with apt, {self.takes}"

    @property
    def _lock(self) -> str:
        return "apt"

    def is_there(self) -> bool:
        """See `Software`."""
        return shutil.which(self.name, path=system_path()) is not None

    def path(self) -> str:
        """Return where the program is; raises `NotInstalled` if it is missing."""
        found = shutil.which(self.name, path=system_path())
        if found is None:
            raise NotInstalled(f"{self.name} is missing; as root run: {APT_INSTALL} {self.package}")
        return found

    def _fetch(self) -> None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            self.path()  # says what is missing, and the command
        apt_install(self.package)
        self.path()


def system_path() -> str:
    """Return a PATH on which the servers' programs are, outside and inside a folder."""
    return ":".join([os.environ.get("PATH", ""), _SYSTEM_PATH, *map(str, _apart())])


def _apart() -> list[Path]:
    """Folders of programs that Debian keeps off the PATH, the newest release first."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


DEBOOTSTRAP = Program("debootstrap", "debootstrap")
JAVA = Program("java", "default-jre-headless", "a minute")
MAVEN = Program("mvn", "maven", "a minute")
#: For tests of TLS and of reports.
OPENSSL = Program("openssl", "openssl")
CHROMIUM = Program("chromium", "chromium", "two minutes")
