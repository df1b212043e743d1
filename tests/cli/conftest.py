"""A project folder with a gearshift.toml on SQLite, and ways to run the command line in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.waiting import PATIENCE_S

from gearshift._core import reconnect
from gearshift.cli import cli
from native_brokers.ports import reserve_ports

SETTINGS = """\
profile = "dev"
[profiles.dev]
backend = "sqlite"
path = "dev.db"
[profiles.memory]
backend = "memory"
[channels.orders]
semantics = "queue"
groups = ["default", "audit"]
[channels.events]
semantics = "stream"
"""

EndAfter = Callable[[float], None]
Run = Callable[..., Result]
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: settings with a queue and a stream."""
    for name in [name for name in os.environ if name.startswith("GEARSHIFT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "gearshift.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    """The command line inside this process; no terminal."""

    def call(*arguments: str, input: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(cli, arguments, input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
        assert "this is a bug" not in result.output
        return result

    return call


@pytest.fixture
def script() -> Script:
    """The installed ``gearshift`` as a process."""

    def call(
        *arguments: str, input: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command_path(), *arguments],
            input=input,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return call


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, a broker that is down is given up after the first attempt."""
    original = reconnect.connect_until

    def connect_until(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **options | {"timeout_s": 0.0})

    monkeypatch.setattr("gearshift.bus.connections.connect_until", connect_until)


@pytest.fixture
def end_after(monkeypatch: pytest.MonkeyPatch) -> EndAfter:
    """Sets after how many seconds of silence ``peek`` and ``dlq`` end, in this process.

    At first that is all patience: a test says by --max how many it expects.
    """

    def set_silence(seconds: float) -> None:
        for module in ("peek", "dlq"):
            monkeypatch.setattr(f"gearshift.cli.{module}._IDLE_S", seconds)

    set_silence(PATIENCE_S)
    return set_silence


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    return reserve_ports(1)[0]


def command_path() -> str:
    """The script beside this interpreter."""
    return str(Path(sys.executable).with_name("gearshift"))


def records(text: str) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def lines(values: Sequence[object]) -> str:
    """Values as JSON lines."""
    return "".join(json.dumps(value) + "\n" for value in values)
