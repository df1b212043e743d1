"""``gearshift bench`` on the embedded broker."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from gearshift.cli import cli

SETTINGS = """
profile = "dev"
[profiles.dev]
backend = "sqlite"
path = "dev.db"
[profiles.gone]
backend = "redis"
url = "redis://127.0.0.1:9/0"
timeout_s = 0.5
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with settings, to work in."""
    (tmp_path / "gearshift.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("semantics", ["queue", "stream"])
def test_every_work_is_measured_and_leaves_nothing(semantics: str) -> None:
    """A figure for each size and number of threads; the channels are gone afterwards."""
    asked = "--messages 200 --size 64 --size 5000 --threads 1 --threads 3 -o json"
    done = CliRunner().invoke(cli, ["bench", "dev", "--semantics", semantics, *asked.split()])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert [(one["work"], one["size"], one["threads"]) for one in figures] == [
        (work, size, threads)
        for size in (64, 5000)
        for work, threads in (
            ("send", 1), ("send", 3), ("send_many", 1), ("receive", 1), ("end_to_end", 1)
        )
    ]  # fmt: skip
    for one in figures:
        measured = [one[name] for name in ("p50_ms", "p99_ms")]
        if one["work"] != "end_to_end":
            measured = [one[name] for name in ("rate", "cpu_us")]
        assert all(value > 0 for value in measured), one
    with closing(sqlite3.connect("dev.db")) as file:
        assert file.execute("SELECT name FROM channel").fetchall() == []


def test_a_table_is_shown() -> None:
    """With a row for the one work that was asked for, beside the head."""
    done = CliRunner().invoke(cli, ["bench", "--messages", "100", "--work", "send_many"])
    assert done.exit_code == 0, done.output
    head, row = done.stdout.splitlines()
    assert head.split()[:3] == ["work", "bytes", "messages"]
    assert row.split()[:3] == ["send_many", "256", "100"]


def test_a_broker_that_is_not_there_is_one_error() -> None:
    """Exit code 3, and no figures."""
    done = CliRunner().invoke(cli, ["bench", "gone", "--messages", "100"])
    assert done.exit_code == 3, done.output
    assert done.stdout == ""
    assert "error: redis" in done.stderr


def test_an_unknown_profile_is_one_error() -> None:
    """It names those that there are."""
    done = CliRunner().invoke(cli, ["bench", "nowhere"])
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
    assert "dev" in done.stderr
