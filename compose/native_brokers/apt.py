"""Debian's packages, one at a time: apt refuses a second run rather than wait for the first."""

from __future__ import annotations

import os
import shutil

from native_brokers.cache import one_at_a_time
from native_brokers.errors import BrokerUnavailable
from native_brokers.process import run_or_raise

_INSTALL = "apt-get update && apt-get install -y --no-install-recommends"
# Debian starts a service that it installs unless policy-rc.d says no (exit code 101).
_INSTALL_ONLY = f"""
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy && chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
{_INSTALL}
"""


def apt_install(package: str) -> None:
    """Install `package` without starting a service of it; waits for other runs of this function.

    Blocks for as long as apt takes. Raises `BrokerUnavailable`, which names the command to run,
    if this user may not or apt fails.
    """
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise BrokerUnavailable(
            f"{package} is not installed and only root can do it with apt; "
            f"run: sudo sh -c '{_INSTALL} {package}'"
        )
    with one_at_a_time("apt"):
        run_or_raise(
            ["sh", "-ec", f"{_INSTALL_ONLY.rstrip()} {package}\n"],
            f"apt could not install {package}; mend that and run: {_INSTALL} {package}",
        )
