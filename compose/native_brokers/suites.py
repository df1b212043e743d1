"""A Debian suite in a folder of the cache: made once by debootstrap, entered by chroot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from native_brokers.cache import cache_folder
from native_brokers.errors import NotInstalled
from native_brokers.process import run_or_raise
from native_brokers.software import DEBOOTSTRAP, Software

_SCRIPTS = Path("/usr/share/debootstrap/scripts")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
# A mount namespace of its own: its mounts end with its last process, however that ends.
_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")
_ENTER = """
root=$1 account=$2; shift 2
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mount --rbind "$1" "$root$2"
    shift 2
done
shift
exec chroot --userspec="$account" --groups= "$root" "$@"
"""


@dataclass(frozen=True)
class Suite(Software):
    """A minimal Debian with `packages`, in the folder `folder` of the cache. Any thread."""

    name: str
    folder: str
    packages: tuple[str, ...]

    @property
    def root(self) -> Path:
        """Its root folder, which exists once it is complete."""
        return cache_folder() / self.folder

    @property
    def title(self) -> str:
        """See `Software`."""
        return f"Debian {self.name} with {' and '.join(self.packages)}, three minutes"

    @property
    def _lock(self) -> str:
        return self.folder

    def is_there(self) -> bool:
        """See `Software`."""
        return self.root.exists()

    def _fetch(self) -> None:
        self._require_root()
        DEBOOTSTRAP.install()
        # Renamed when complete, so that the folder is there in full or not at all.
        partial = self.root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run_or_raise(
            [*_OWN_MOUNTS, *self._debootstrap(partial)], f"debootstrap could not make {partial}"
        )
        hosts = partial / "etc/hosts"
        if not hosts.exists():  # forky has none, and its programs look localhost up in it
            hosts.write_text(_HOSTS)
        partial.rename(self.root)

    def argv(
        self, *command: str, mounts: Mapping[Path, str] | None = None, account: str = "0:0"
    ) -> list[str]:
        """Return the command that runs `command` in the folder as `account`, `user:group`.

        It becomes `command`, so the process id stays the same. `command` sees /proc, /dev and the
        folders of `mounts`, each at the path given for it, which must exist in the suite. Raises
        `NotInstalled` if this user is not root.
        """
        self._require_root()
        pairs = [str(part) for mount in (mounts or {}).items() for part in mount]
        enter = ["sh", "-ec", _ENTER, "sh", str(self.root), account, *pairs, "--"]
        return [*_OWN_MOUNTS, *enter, *command]

    def _require_root(self) -> None:
        if os.geteuid() != 0:
            raise NotInstalled(
                f"Debian {self.name} runs in a folder by chroot, which only root may do"
            )

    def _debootstrap(self, folder: Path) -> list[str]:
        # A suite younger than the debootstrap at hand has no script there; sid's does for it.
        script = _SCRIPTS / self.name
        if not script.exists():
            script = _SCRIPTS / "sid"
        options = ["--variant=minbase", f"--keyring={_KEYRING}"]
        options.append(f"--include={','.join(self.packages)}")
        return ["debootstrap", *options, self.name, str(folder), _mirror(), str(script)]


def _mirror() -> str:
    """Return the mirror that apt takes Debian from; "" if it names none, for debootstrap's own."""
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return next(iter(found.stdout.splitlines()), "")
