"""``ls``, ``purge``, ``config`` and ``backends``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli.conftest import Run, lines, records
from support.waiting import take

import gearshift
from gearshift import plugins
from gearshift.cli.ls import age
from gearshift.plugins import PluginEntry


def test_ls_shows_configured_channels_that_are_not_there(run: Run) -> None:
    """It creates nothing."""
    result = run("ls")
    assert result.exit_code == 0
    assert result.stdout.count("does not exist") == 2
    assert [entry["exists"] for entry in records(run("ls", "-o", "jsonl").stdout)] == [False, False]


def test_ls_shows_what_waits(run: Run) -> None:
    """A row per group; what does not apply is n/a in the table and null in JSON."""
    run("send", "orders", input=lines(list(range(1200))))
    run("send", "events", input="1\n")
    with gearshift.open() as bus, bus.consumer("events", group="billing") as inbox:
        take(inbox, 1)[0].ack()
    table = run("ls").stdout.splitlines()
    assert table[0].split() == [
        "CHANNEL", "SEMANTICS", "GROUP", "READY", "IN", "FLIGHT", "LAG", "OLDEST", "CONSUMERS"
    ]  # fmt: skip
    assert table[1].split()[:6] == ["orders", "queue", "default", "1,200", "0", "n/a"]
    assert table[2].split()[:2] == ["audit", "1,200"]
    assert table[3].split()[:6] == ["events", "stream", "billing", "n/a", "n/a", "0"]
    first, _, stream = json.loads(run("ls", "-o", "json").stdout)
    assert (first["ready"], first["lag"], first["consumers"]) == (1200, None, 0)
    assert (stream["ready"], stream["lag"]) == (None, 0)


def test_ls_of_named_channels(run: Run) -> None:
    """Channels that the configuration does not list can be looked at."""
    assert run("ls", "nosuch").stdout.splitlines()[1].split()[0] == "nosuch"


def test_ls_without_channels(run: Run, project: Path) -> None:
    """A remark on stderr says what to do; JSON is an empty list."""
    (project / "gearshift.toml").write_text('[profiles.dev]\nbackend = "memory"\n')
    result = run("ls", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == []
    assert "CHANNEL" in result.stderr


def test_ls_goes_on_after_a_channel_that_cannot_be_used(run: Run, project: Path) -> None:
    """The others are listed; the exit code is that of the first error."""
    run("send", "orders", input="1\n")
    text = (project / "gearshift.toml").read_text()
    (project / "gearshift.toml").write_text(text.replace('"queue"\ngroups', '"stream"\n#'))
    result = run("ls")
    assert result.exit_code == 2
    assert "not usable" in result.stdout
    assert "events" in result.stdout
    assert "is a queue, not a stream" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0s"), (59.94, "59.9s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"),
     (86400 * 3 + 3600 * 4, "3d04h")],
)  # fmt: skip
def test_ages_are_shown_in_two_units(seconds: float, shown: str) -> None:
    """Short, and of the right size."""
    assert age(seconds) == shown


@pytest.mark.parametrize(
    "command",
    [("ls", "ordrs"), ("top", "ordrs", "--once"), ("replay", "ordrs"), ("peek", "ordrs"),
     ("tail", "ordrs"), ("purge", "ordrs", "--yes"), ("dlq", "show", "ordrs"),
     ("dlq", "redrive", "ordrs", "--yes"), ("dlq", "purge", "ordrs", "--yes")],
    ids=" ".join,
)  # fmt: skip
def test_a_misspelt_channel_is_an_error(run: Run, command: tuple[str, ...]) -> None:
    """Neither the settings nor the broker know it; the hint says which may be meant."""
    result = run(*command)
    assert result.exit_code == 2
    assert "there is no such channel" in result.stderr
    assert "did you mean 'orders'?" in result.stderr


# ── purge ────────────────────────────────────────────────────────────────────────────────────────


def test_purge_is_a_dry_run_without_yes(run: Run) -> None:
    """It says what would go, touches nothing, and off a terminal it fails: a script must know."""
    run("send", "orders", input="1\n2\n")
    result = run("purge", "orders")
    assert result.exit_code == 2
    assert "would purge 2 messages of group 'default'" in result.stdout
    assert "--yes" in result.stderr
    with gearshift.open() as bus:
        assert {state.ready for state in bus.groups("orders")} == {2}


def test_purge_takes_one_group_only(run: Run) -> None:
    """With --yes; other groups keep theirs."""
    run("send", "orders", input="1\n")
    result = run("purge", "orders", "--group", "audit", "--yes")
    assert result.exit_code == 0
    assert result.stdout == "purged 1 message of group 'audit' of 'orders'\n"
    with gearshift.open() as bus:
        assert [(s.group, s.ready) for s in bus.groups("orders")] == [("default", 1), ("audit", 0)]


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_purge_of_what_is_not_there(run: Run, yes: tuple[str, ...]) -> None:
    """Unknown channels and groups are errors in the dry run too."""
    run("send", "orders", input="1\n")
    for arguments in (("nosuch",), ("orders", "--group", "nosuch")):
        result = run("purge", *arguments, *yes)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "hint: " in result.stderr


# ── config ───────────────────────────────────────────────────────────────────────────────────────


def test_config_show_names_origins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and where it comes from: file and line, environment, default."""
    monkeypatch.setenv("GEARSHIFT_CHANNELS__ORDERS__MAX_ATTEMPTS", "9")
    rows = {row["key"]: row for row in json.loads(run("config", "show", "-o", "json").stdout)}
    assert rows["profiles.dev.path"]["origin"] == "gearshift.toml:4"
    assert rows["profiles.dev.lease_s"]["origin"] == "default"
    assert rows["channels.orders.max_attempts"] == {
        "key": "channels.orders.max_attempts",
        "value": "9",
        "origin": "environment GEARSHIFT_CHANNELS__ORDERS__MAX_ATTEMPTS",
    }
    assert "profiles.dev.path" in run("config", "show").stdout


def test_config_show_without_the_backend(run: Run, project: Path) -> None:
    """Settings of a backend that is not installed are shown all the same, with a remark."""
    (project / "gearshift.toml").write_text('[profiles.p]\nbackend = "nosuch"\nurl = "x"\n')
    result = run("config", "show")
    assert result.exit_code == 0
    assert "profiles.p.url" in result.stdout
    assert "'nosuch' is not installed" in result.stderr


def test_config_path(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file in use, found from below too; exit code 1 if there is none."""
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert run("config", "path").stdout == f"{project / 'gearshift.toml'}\n"
    (project / "gearshift.toml").unlink()
    result = run("config", "path")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "gearshift init" in result.stderr


# ── backends ─────────────────────────────────────────────────────────────────────────────────────


def test_backends_lists_what_is_installed(run: Run) -> None:
    """A row per semantics; JSON has every capability."""
    table = run("backends")
    assert table.exit_code == 0
    for name in ("kafka", "memory", "rabbitmq", "sqlite"):
        assert name in table.stdout
    listed = {entry["name"]: entry for entry in json.loads(run("backends", "-o", "json").stdout)}
    assert listed["memory"]["capabilities"]["stream"]["replay"] is True
    assert listed["memory"]["distribution"] == "gearshift"


def test_one_backend_in_full(run: Run) -> None:
    """Every capability in a row, a column per semantics."""
    result = run("backends", "memory")
    for capability in gearshift.Capabilities.__dataclass_fields__:
        assert capability in result.stdout
    assert (
        json.loads(run("backends", "memory", "-o", "json").stdout)["default_semantics"] == "queue"
    )


def test_a_backend_over_others_has_their_capabilities(run: Run) -> None:
    """It is listed, and says where its capabilities come from."""
    assert re.search("chaos +over another", run("backends").stdout)
    assert "the profile that it stands over" in run("backends", "chaos").stdout
    assert json.loads(run("backends", "chaos", "-o", "json").stdout)["capabilities"] == {}


def test_a_broken_plugin_does_not_hide_the_others(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is marked, and its cause is told on stderr."""
    listed = [*plugins.available(), PluginEntry("zeta", "gearshift-zeta", "1.0", "no_such_module")]
    monkeypatch.setattr(plugins, "available", lambda: listed)
    result = run("backends")
    assert result.exit_code == 0
    assert "sqlite" in result.stdout
    assert "no_such_module" in result.stderr
    assert run("backends", "zeta").exit_code == 2


@pytest.mark.parametrize(
    ("profile", "file"), [('path = "data/x.db"', "data/x.db"), ("", ".gearshift/gearshift.db")]
)
def test_a_relative_path_begins_at_the_settings_file(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, profile: str, file: str
) -> None:
    """From whichever folder below one works, it is the same broker; a default path included."""
    (project / "gearshift.toml").write_text(f'[profiles.p]\nbackend = "sqlite"\n{profile}\n')
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert run("send", "orders", input="1\n").exit_code == 0
    assert (project / file).is_file()
    assert list((project / "below").iterdir()) == []
