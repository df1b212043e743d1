"""Run the tests that need no broker on every supported Python, one after the other.

A Python that this machine has as ``python3.X`` is used. Any other comes with the Debian suite that
ships it, in a folder of the cache, which takes root. What can be had neither way is left out, and
the last line says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from machines.network import folder_environment, share_network

from native_brokers import BrokerUnavailable
from native_brokers.suites import Suite

ROOT = Path(__file__).parents[2]
#: Each supported Python, and the Debian suite that ships it.
SUITES = {"3.11": "bookworm", "3.12": None, "3.13": "trixie", "3.14": "forky"}


def main() -> int:
    """Return 0 if no test failed; blocks for minutes for each version."""
    outcomes = {}
    for version, suite in SUITES.items():
        print(f"\nPython {version}", flush=True)
        if _is_here(version):
            outcomes[version] = _unit(version)
        elif suite is not None and os.geteuid() == 0:
            outcomes[version] = _unit_in(suite, version)
        else:
            outcomes[version] = f"left out, there is no python{version}"
    print("\n" + "; ".join(f"Python {version}: {what}" for version, what in outcomes.items()))
    return int("failed" in outcomes.values())


def _is_here(version: str) -> bool:
    """Whether it can make virtual environments; a program that is only a stub cannot."""
    try:
        return not subprocess.run(
            [f"python{version}", "-c", "import ensurepip"], capture_output=True
        ).returncode
    except FileNotFoundError:
        return False


def _unit(version: str) -> str:
    # This script's own import path is not the tests'.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return _run(_make(version, ROOT), environment)


def _unit_in(name: str, version: str) -> str:
    packages = ("python3-venv", "make", "git", "ca-certificates")
    suite = Suite(name, f"python-{version}", packages)
    try:
        suite.install()
    except BrokerUnavailable as error:
        print(error)
        return "failed"
    share_network(suite)
    return _run(
        suite.argv(*_make(version, Path("/srv")), mounts={ROOT: "/srv"}), folder_environment()
    )


def _make(version: str, project: Path) -> list[str]:
    """Return the command for a virtual environment of its own beside the developer's."""
    environment = [f"PYTHON=python{version}", f"VENV=.pythons/{version}"]
    return ["make", "--no-print-directory", "-C", str(project), *environment, "unit"]


def _run(command: list[str], environment: dict[str, str]) -> str:
    return "passed" if subprocess.run(command, env=environment).returncode == 0 else "failed"


if __name__ == "__main__":
    sys.exit(main())
