"""Debian's packages: without their services, and beside other runs of apt."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from native_brokers.errors import BrokerUnavailable

APT_INSTALL = "apt-get update && apt-get install -y --no-install-recommends"
_POLICY = Path("/usr/sbin/policy-rc.d")
_WAIT_S = 600.0


def apt_install(package: str) -> None:
    """Install `package` as root without starting a service of it.

    Blocks for as long as apt takes, and while another program runs it. Raises `BrokerUnavailable`,
    which names the command to run, if apt fails.
    """
    install = ("install", "-y", "--no-install-recommends", package)
    with _no_services():
        done = _apt(*install)
        if done.returncode != 0:  # the lists of packages are missing, or too old
            _apt("update")
            done = _apt(*install)
    if done.returncode != 0:
        problem = f"apt could not install {package}; mend that and run: {APT_INSTALL} {package}"
        raise BrokerUnavailable("\n".join([problem, *done.stdout.splitlines()[-20:]]))


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + _WAIT_S
    while True:
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        )
        # It has an option to wait for the lock of dpkg, and none for those of its own.
        locked = done.returncode != 0 and "Could not get lock" in done.stdout
        if not locked or time.monotonic() > deadline:
            return done
        time.sleep(1.0)


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian starts a service that it installs unless policy-rc.d says no, with exit code 101."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
