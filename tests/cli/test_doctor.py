"""``doctor`` finds the step that fails, names cause and fix, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Run, records
from support.waiting import PATIENCE_S

import gearshift
from gearshift import plugins
from gearshift.embedded.memory import Backend
from gearshift.errors import AuthenticationFailed, PublishRefused
from gearshift.exit_codes import exit_code
from gearshift.operations import doctor
from gearshift.operations.doctor import STEPS, Check, Status, examine

Broken = Callable[..., None]


def _by_step(checks: Sequence[Check]) -> dict[str, Status]:
    return {check.step: check.status for check in checks}


def _code(check: Check) -> int:
    assert check.error
    return exit_code(check.error)


def _failed(checks: Sequence[Check]) -> Check:
    (check,) = [check for check in checks if check.status is Status.FAILED]
    assert check.hint
    assert check.error
    return check


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    """Selects the memory backend with some of its methods replaced."""

    def install(**methods: Any) -> None:
        original = plugins.load

        def load(name: str) -> Any:
            backend = type("Broken", (Backend,), methods)
            return replace(original(name), connect=backend)

        monkeypatch.setattr(plugins, "load", load)
        monkeypatch.setenv("GEARSHIFT_PROFILE", "memory")

    return install


def test_all_is_well(run: Run) -> None:
    """Exit code 0; every step has its line, in order."""
    result = run("doctor")
    assert result.exit_code == 0
    words = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert list(dict.fromkeys(words)) == list(STEPS)
    assert "failed" not in result.stdout


def test_it_creates_nothing(run: Run, project: Path) -> None:
    """No channel is there afterwards: neither configured ones nor its own."""
    assert run("doctor").exit_code == 0
    with gearshift.open() as bus:
        assert not bus.exists("orders")
        assert not bus.exists("events")
    database = sqlite3.connect(project / "dev.db")
    dump = "\n".join(database.iterdump())
    database.close()
    assert "gearshift-doctor" not in dump


def test_json(run: Run) -> None:
    """-o json is one list, -o jsonl a line per finding; both with the fix."""
    listed = json.loads(run("doctor", "-o", "json").stdout)
    assert [entry["step"] for entry in listed] == [
        entry["step"] for entry in records(run("doctor", "-o", "jsonl").stdout)
    ]
    assert listed[0].keys() == {"step", "status", "detail", "subject", "hint"}


def test_config_fails(run: Run, project: Path) -> None:
    """A wrong setting: nothing else is run, exit code 2."""
    (project / "gearshift.toml").write_text('[profiles.p]\nbackend = "sqlite"\n[chanels.x]\n')
    result = run("doctor")
    assert result.exit_code == 2
    first, fix, *others = result.stdout.splitlines()
    assert first.split()[:2] == ["config", "failed"]
    assert "fix: did you mean 'channels'?" in fix
    assert len(others) == 6
    assert all("not run" in line and "needs config" in line for line in others)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ('backend = "rabitmq"', "'rabbitmq'"),
        ('backend = "sqlite"\npaht = "x"', "'path'"),
        ('backend = "sqlite"\nlease_s = -1', "lease_s"),
    ],
)
def test_plugin_fails(project: Path, profile: str, words: str) -> None:
    """A backend that is not installed, or settings that it refuses."""
    (project / "gearshift.toml").write_text(f"[profiles.p]\n{profile}\n")
    checks = list(examine())
    check = _failed(checks)
    assert (check.step, _code(check)) == ("plugin", 2)
    assert words in f"{check.detail} {check.hint}"
    assert [check.status for check in checks[2:]] == [Status.NOT_RUN] * 5


def test_chaos_is_a_warning(run: Run, project: Path) -> None:
    """It names the profile for production; the round trip works all the same."""
    chaos = '[profiles.staging]\nbackend = "chaos"\nover = "dev"\nrate = 0\n'
    with (project / "gearshift.toml").open("a") as file:
        file.write(chaos)
    result = run("doctor", "--profile", "staging")
    assert result.exit_code == 0
    assert re.search("plugin +warning +chaos over sqlite", result.stdout)
    assert "select profile 'dev' itself" in result.stdout
    assert "chaos is on, over profile 'dev'" in result.stderr


@pytest.mark.parametrize(
    "setting",
    ['backend = "rabbitmq"\nurl = "amqp://127.0.0.1:{port}/"',
     'backend = "kafka"\nbootstrap_servers = ["127.0.0.1:{port}"]'],
    ids=["rabbitmq", "kafka"],
)  # fmt: skip
def test_tcp_fails(run: Run, project: Path, free_port: int, setting: str) -> None:
    """Host and port are named; exit code 3; what needs the network is not run."""
    text = setting.replace("{port}", str(free_port))
    (project / "gearshift.toml").write_text(f"[profiles.p]\n{text}\n")
    result = run("doctor")
    assert result.exit_code == 3
    assert f"127.0.0.1:{free_port}: cannot connect: Connection refused" in result.stdout
    assert result.stdout.count("needs tcp") == 4


def test_one_of_several_servers_is_down(broken: Broken, free_port: int) -> None:
    """A warning, as long as another one answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        up = server.getsockname()
        broken(endpoints=lambda self: [("127.0.0.1", free_port), up])
        checks = [check for check in examine() if check.step == "tcp"]
    assert [check.status for check in checks] == [Status.WARNING, Status.OK]
    assert str(free_port) in checks[0].detail


def test_a_host_name_that_nobody_knows(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause is told apart from a refused connection."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)  # a resolver may take its time
    broken(endpoints=lambda self: [("nosuch.invalid", 5672)])
    check = _failed(list(examine()))
    assert "nosuch.invalid:5672: the host name cannot be resolved" in check.detail


def test_a_look_up_that_never_ends(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check's own deadline holds."""
    monkeypatch.setattr(doctor, "_CONNECT_TIMEOUT_S", 0.05)
    over = threading.Event()

    def create_connection(*_: object, **__: object) -> None:
        over.wait(PATIENCE_S)
        raise OSError("too late")

    monkeypatch.setattr("socket.create_connection", create_connection)
    broken(endpoints=lambda self: [("slow.invalid", 1)])
    detail = _failed(list(examine())).detail
    over.set()
    for thread in threading.enumerate():
        if thread.name == "gearshift-doctor":
            thread.join()
    assert "no answer" in detail


def test_auth_fails(broken: Broken) -> None:
    """Refused credentials: exit code 3, and nothing after it is tried."""

    def admin(self: object) -> None:
        raise AuthenticationFailed("refused the credentials")

    broken(admin=admin)
    checks = list(examine())
    check = _failed(checks)
    assert (check.step, _code(check)) == ("auth", 3)
    assert _by_step(checks)["round trip"] is Status.NOT_RUN


def test_topology_conflicts(run: Run, project: Path) -> None:
    """A channel that exists as something else is found; the round trip is run all the same."""
    run("send", "orders", input="1\n")
    text = (project / "gearshift.toml").read_text()
    (project / "gearshift.toml").write_text(text.replace('"queue"\ngroups', '"stream"\n#'))
    checks = list(examine())
    check = _failed(checks)
    assert (check.step, check.subject, _code(check)) == ("topology", "orders", 2)
    assert _by_step(checks)["round trip"] is Status.OK


def test_partitions_that_differ_are_found(run: Run, project: Path) -> None:
    """What exists is compared with what is configured."""
    run("send", "events", input="1\n")
    text = (project / "gearshift.toml").read_text() + "partitions = 7\n"
    (project / "gearshift.toml").write_text(text)
    assert "partitions" in _failed(list(examine())).detail


def test_a_requirement_that_is_not_met(project: Path, run: Run) -> None:
    """The exit code is that of a missing capability."""
    text = (project / "gearshift.toml").read_text() + 'requires = ["attempt=exact"]\n'
    (project / "gearshift.toml").write_text(text)
    result = run("doctor")
    assert result.exit_code == 4
    assert "requires attempt=exact" in result.stdout


def test_topology_tells_what_is_there(run: Run) -> None:
    """Groups that exist, and channels that would be created."""
    run("send", "orders", input="1\n")
    details = {check.subject: check.detail for check in examine() if check.step == "topology"}
    assert details["orders"] == (
        "orders: queue; groups: default, audit; messages of up to 67,108,864 bytes"
    )
    assert "would be created" in details["events"]


def test_named_channels(run: Run) -> None:
    """Only those are looked at; one that nobody may create is a failure with a suggestion."""
    checks = [check for check in examine(channels=["orderz"]) if check.step == "topology"]
    assert [check.subject for check in checks] == ["orderz"]
    assert "'orders'" in str(_failed(checks).hint)


def test_round_trip_fails(broken: Broken) -> None:
    """A broker that refuses the message."""

    def producer(self: object, channel: object) -> None:
        raise PublishRefused("the disk is full")

    broken(producer=producer)
    check = _failed(list(examine()))
    assert (check.step, _code(check)) == ("round trip", 1)
    assert "the disk is full" in check.detail


def test_a_message_that_does_not_come_back(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored but never delivered: that is told apart from a refusal."""
    monkeypatch.setattr(gearshift.Consumer, "receive", lambda *_, **__: [])
    broken()
    check = _failed(list(examine()))
    assert check.step == "round trip"
    assert "stored, but did not come back" in check.detail


def test_a_plugin_that_fails_in_its_own_way(broken: Broken) -> None:
    """An error that is none of ours is a finding too, not a traceback."""

    def endpoints(self: object) -> None:
        raise KeyError("oops")

    broken(endpoints=endpoints)
    check = _failed(list(examine()))
    assert (check.step, _code(check)) == ("plugin", 1)
    assert "KeyError" in check.detail


def test_no_round_trip(run: Run) -> None:
    """--no-round-trip leaves the step out and says so."""
    result = run("doctor", "--no-round-trip")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].split()[:3] == ["round", "trip", "skipped"]
