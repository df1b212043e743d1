"""Run targets of the Makefile in a Debian 12 that has nothing but Python, make and git; twice.

The first time nothing is cached, the second time everything is. The machine is a folder of the
cache, entered by chroot, with a clone of the last commit. It is removed at the end.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from machines.network import folder_environment, share_network

from native_brokers import BrokerUnavailable
from native_brokers.suites import Suite

ROOT = Path(__file__).parents[2]
_EMPTY = Suite(
    "bookworm", "empty-debian", ("python3", "python3-venv", "make", "git", "ca-certificates")
)
_USED = replace(_EMPTY, folder="fresh-machine")


def main(targets: list[str]) -> int:
    """Return 0 if every target succeeded both times; blocks until then. Needs root."""
    try:
        _EMPTY.install()
    except BrokerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    try:
        _new_machine()
        for state in ("with nothing cached", "again"):
            for target in targets:
                print(f"\nmake {target}, {state}", flush=True)
                start = time.monotonic()
                code = _make(target)
                print(f"make {target}, {state}: exit code {code}, {time.monotonic() - start:.0f} s")
                if code != 0:
                    return 1
    finally:
        shutil.rmtree(_USED.root, ignore_errors=True)
    return 0


def _new_machine() -> None:
    shutil.rmtree(_USED.root, ignore_errors=True)
    subprocess.run(["cp", "-a", _EMPTY.root, _USED.root], check=True)
    share_network(_USED)
    clone = ["git", "clone", "-q", "--no-hardlinks", ROOT, _USED.root / "root/gearshift"]
    subprocess.run(clone, check=True)


def _make(target: str) -> int:
    # Onto itself, as a chroot's root has to be a mount for folders to be made and entered in it.
    mounts = {_USED.root: "/"}
    command = _USED.argv("make", "-C", "/root/gearshift", target, mounts=mounts)
    return subprocess.run(command, env=folder_environment()).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["demo", "test"]))
