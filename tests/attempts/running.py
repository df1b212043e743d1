"""Runs handler.py until it dies or a test has seen what it waits for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.waiting import until

from attempts import handler


def run(done: Callable[[], object], *arguments: object) -> int:
    """Run it with ``arguments`` until it dies or ``done()`` holds; its exit code."""
    command = [sys.executable, handler.__file__, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert until(lambda: process.poll() is not None or done())
    return process.returncode


def handled(log: Path) -> list[str]:
    """The values that handlers have written to ``log``, in that order."""
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []
