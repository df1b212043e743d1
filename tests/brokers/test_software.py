"""Software that is missing is fetched once, with a word about it, by whoever starts the broker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from native_brokers import NotInstalled, Redis
from native_brokers.software import Program, Software

COMPOSE = Path(__file__).parents[2] / "compose"
INSTALL = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from native_brokers.software import Software

@dataclass(frozen=True)
class Slow(Software):
    file: Path
    title = "something slow"
    _lock = "slow"

    def is_there(self):
        return self.file.exists()

    def _fetch(self):
        time.sleep(0.5)
        self.file.write_text("")

Slow(Path(sys.argv[1])).install()
"""


def test_processes_that_need_it_at_once_fetch_it_once(tmp_path: Path) -> None:
    """One of them says on standard error that it does; the others wait and say nothing."""
    environment = {**os.environ, "PYTHONPATH": str(COMPOSE), "XDG_CACHE_HOME": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", INSTALL, str(tmp_path / "file")],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    said = "".join(process.communicate()[1] for process in processes)
    assert said == "native_brokers: fetching something slow\n"
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_start_fetches_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody needs to call `install` before."""

    class Missing(Program):
        def is_there(self) -> bool:
            return False

        def _fetch(self) -> None:
            raise NotInstalled("fetching")

    missing: tuple[Software, ...] = (Missing("redis-server", "redis-server"),)
    monkeypatch.setattr(Redis, "software", lambda: missing)
    with pytest.raises(NotInstalled, match="fetching"):
        Redis().start()


def test_who_may_not_install_it_is_told_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The one that root would run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotInstalled, match=r"no-such-program is missing; as root run: .* no-such"):
        Program("no-such-program", "no-such-package").install()
