"""Give a Debian folder, and commands in it, the access to the network that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from native_brokers.suites import Suite

_FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/pip.conf")
#: Certificate authorities that the administrator added, such as a proxy's.
_AUTHORITIES = Path("/usr/local/share/ca-certificates")
#: What a shell there would have too. A folder to look for packages in is not one of that Debian.
_VARIABLES = ("PATH", "TERM", "CI")
_BEGINNINGS = ("PIP_", "HTTP_", "HTTPS_", "NO_", "http_", "https_", "no_")
_LOCAL = "PIP_FIND_LINKS"


def folder_environment() -> dict[str, str]:
    """Return the variables for a command in the folder."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != _LOCAL and (name in _VARIABLES or name.startswith(_BEGINNINGS))
    }
    # No other locale is there.
    return {**kept, "HOME": "/root", "LC_ALL": "C.UTF-8"}


def share_network(suite: Suite) -> None:
    """Copy names, added authorities and pip's settings; `suite` needs ca-certificates.

    Blocks for some seconds. Raises OSError or CalledProcessError.
    """
    for file in map(Path, _FILES):
        if file.exists():
            shutil.copy(file, suite.root / file.relative_to("/"))
    if _AUTHORITIES.exists():
        shutil.copytree(
            _AUTHORITIES, suite.root / _AUTHORITIES.relative_to("/"), dirs_exist_ok=True
        )
    subprocess.run(suite.argv("update-ca-certificates"), check=True, capture_output=True)
