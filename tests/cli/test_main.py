"""What every command shares: help, errors, exit codes, streams, secrets, terminals."""

from __future__ import annotations

import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from cli.conftest import Run, Script, command_path, lines, records
from click.testing import CliRunner
from support.waiting import PATIENCE_S

import gearshift
import gearshift.cli
from gearshift.cli import COMMANDS, cli, load_command
from gearshift.errors import PublishRefused

CANARY = "canary/swordfish@secret"
ESCAPE = "\x1b"

#: One run of each command that opens a broker or shows settings.
OPENING = [
    ("ls",),
    ("ls", "-o", "json"),
    ("send", "orders"),
    ("tail", "orders", "--idle", "0.1"),
    ("purge", "orders", "--yes"),
    ("peek", "orders"),
    ("replay", "orders", "--idle", "0.1"),
    ("dlq", "list"),
    ("dlq", "redrive", "orders", "--yes"),
    ("explain",),
    ("doctor",),
    ("doctor", "-o", "json"),
    ("config", "show"),
    ("config", "show", "-o", "json"),
    ("backends",),
]


def _walk(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in group.commands.items():
        here = (*path, name)
        command = command if path else load_command(name)
        found += _walk(command, here) if isinstance(command, click.Group) else [here]
    return found


def test_every_command_stands_in_a_panel_of_help() -> None:
    """No module of a command is missing, and each says of itself what the panel says of it."""
    listed = {name: text for panel in COMMANDS.values() for name, text in panel.items()}
    folder = Path(gearshift.cli.__file__).parent
    modules = [path for path in folder.glob("*.py") if "\ndef command(" in path.read_text()]
    assert sorted(listed) == sorted(path.stem for path in modules) == sorted(cli.commands)
    for name, text in listed.items():
        assert (load_command(name).help or "").splitlines()[0] == text


@pytest.mark.parametrize("path", _walk(cli), ids=" ".join)
def test_every_command_has_help(run: Run, path: tuple[str, ...]) -> None:
    """``--help`` ends with 0 and explains on stdout, without escape codes."""
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Usage: gearshift" in result.stdout
    assert ESCAPE not in result.stdout


def test_without_a_command_it_shows_help(run: Run) -> None:
    """``gearshift`` alone is no error."""
    result = run()
    assert result.exit_code == 0
    for panel in COMMANDS:
        assert f"{panel}:" in result.stdout


def test_version(script: Script) -> None:
    """``--version`` of the installed script is the library's."""
    assert script("--version").stdout == f"gearshift {gearshift.__version__}\n"


def test_the_library_does_not_import_the_command_line() -> None:
    """``import gearshift`` brings neither click nor rich, and help no backend's client."""
    code = (
        "import sys, gearshift; assert not {'click', 'rich', 'rich_click'} & set(sys.modules);"
        "import gearshift.cli; assert not {'pika', 'confluent_kafka'} & set(sys.modules);"
        "assert 'gearshift.embedded.sqlite' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch",), "nosuch"),
        (("send",), "CHANNEL"),
        (("ls", "--nosuch"), "--nosuch"),
        (("ls", "-o", "xml"), "xml"),
        (("send", "orders", "no-such-file"), "no-such-file"),
        (("send", "a/b"), "a/b"),
        (("--profile", "prod", "ls"), "prod"),
        (("--config", "nosuch.toml", "ls"), "nosuch.toml"),
        (("run", "nosuch"), "nosuch"),
        (("run", "nosuch:app"), "nosuch"),
        (("run", "os:nosuch"), "nosuch"),
        (("backends", "rabitmq"), "rabitmq"),
    ],
)
def test_a_wrong_argument_is_one_error_with_a_hint(
    run: Run, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 2; stderr has the value and a hint, stdout nothing."""
    result = run(*arguments, input="1\n")
    assert result.exit_code == 2
    assert result.stdout == ""
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import gearshift\nimport no_such_client\n", ("ModuleNotFoundError", "no_such_client")),
        ("from gearshift import NoSuch\n", ("ImportError", "NoSuch")),
        ("import gearshift\napp = = 1\n", ("SyntaxError", "app = = 1")),
        ("app = 1\nprint(1 / 0)\n", ("ZeroDivisionError", "print(1 / 0)")),
        ("import sys\nsys.exit(3)\n", ("SystemExit", "sys.exit(3)")),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_module_that_cannot_be_imported_is_the_users_fault(
    run: Run, project: Path, code: str, words: tuple[str, str], processes: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One error that names it, and as its hint the line of the user's own that raised."""
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (project / "broken_shop.py").write_text(code)
    result = run("run", "broken_shop:app", "--processes", processes)
    assert result.exit_code == 2
    error, hint = result.stderr.splitlines()
    assert error.startswith(f"error: 'broken_shop' cannot be imported: {words[0]}")
    assert hint.startswith(f"hint: see {project / 'broken_shop.py'}, line {code.count(chr(10))}: ")
    assert words[1] in error + hint


def test_options_stand_before_or_after_the_command(run: Run) -> None:
    """--profile may be given to the program or to the command; the command's wins."""
    before = run("--profile", "memory", "config", "show", "-o", "jsonl")
    after = run("--profile", "dev", "config", "show", "--profile", "memory", "-o", "jsonl")
    assert records(before.stdout)[0]["value"] == '"memory"'
    assert before.stdout == after.stdout


def test_a_traceback_only_with_vv(script: Script) -> None:
    """-vv shows where an error arose; the error itself still stands at the end."""
    plain, verbose = script("--profile", "x", "ls"), script("-vv", "--profile", "x", "ls")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in verbose.stderr
    assert verbose.stderr.endswith(plain.stderr)


@pytest.mark.parametrize("backend", ["rabbitmq", "kafka"])
def test_a_broker_that_is_down_ends_it(
    script: Script, project: Path, free_port: int, backend: str
) -> None:
    """At the deadline that --timeout gives, as a process and without help from the tests."""
    _unreachable(project, backend, free_port)
    result = script("send", "orders", "--timeout", "0.5", input="1\n")
    assert result.returncode == 3
    assert f"127.0.0.1:{free_port}" in result.stderr


def test_why_there_is_no_connection_yet_is_told_with_v(
    script: Script, project: Path, free_port: int
) -> None:
    """So that whoever waits for the deadline can see why."""
    _unreachable(project, "rabbitmq", free_port)
    result = script("-v", "send", "orders", "--timeout", "0.2", input="1\n")
    assert result.stderr.startswith("info: not connected yet: ")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("backend", ["rabbitmq", "kafka"])
@pytest.mark.parametrize(
    "arguments", [("ls",), ("send", "orders"), ("tail", "orders"), ("purge", "orders", "--yes")]
)
def test_a_broker_that_is_down_is_named(
    run: Run, project: Path, free_port: int, backend: str, arguments: tuple[str, ...]
) -> None:
    """Exit code 3, host and port in the text, and no traceback."""
    _unreachable(project, backend, free_port)
    result = run(*arguments, input="1\n")
    assert result.exit_code == 3, result.stderr
    assert result.stdout == ""
    assert f"127.0.0.1:{free_port}" in result.stderr
    assert "hint: " in result.stderr


@pytest.mark.parametrize("backend", ["rabbitmq", "kafka"])
@pytest.mark.parametrize("arguments", [("ls",), ("send", "orders"), ("dlq", "list")])
def test_a_server_that_does_not_answer_is_told_of_while_it_is_waited_for(
    project: Path, backend: str, arguments: tuple[str, ...]
) -> None:
    """On stderr: which server, and for how long; not only at the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        _unreachable(project, backend, port)
        process = subprocess.Popen(
            [command_path(), *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        with process, process.stderr as stderr:
            told = stderr.readline().decode()
            still_waiting = process.poll() is None
            process.kill()
        assert f"waiting for 127.0.0.1:{port}, up to 10 s" in told
        assert still_waiting


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "profile",
    [
        'backend = "kafka"\nbootstrap_servers = ["${ADDRESS}"]',
        'backend = "rabbitmq"\nurl = "amqp://app:${PASSWORD}@${HOST}:${PORT}/"',
    ],
)
def test_host_and_port_are_no_secrets(
    run: Run, project: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """Though they come out of variables, as the password does, which shows nowhere."""
    values = {"HOST": "127.0.0.1", "PORT": str(free_port), "PASSWORD": "swordfish"}
    for name, value in (values | {"ADDRESS": f"127.0.0.1:{free_port}"}).items():
        monkeypatch.setenv(name, value)
    (project / "gearshift.toml").write_text(f"[profiles.p]\n{profile}\n[channels.orders]\n")
    result = run("ls")
    assert f"127.0.0.1:{free_port}" in result.stderr
    assert "swordfish" not in result.output


def test_what_a_comparison_would_fail_for_at_its_end_is_refused_first(
    run: Run, project: Path
) -> None:
    """A handler or folder that is not there: exit code 2, and nothing ran."""
    for option, value in (
        ("--handler", "nope:x"), ("--handler", "json:nope"),
        ("--out", "missing/folder/x.html"), ("--out", str(project)),
    ):  # fmt: skip
        result = run("compare", "--scenario", "ordering", option, value)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "ordering on" not in result.stderr
    assert run("conformance", "dev", "--report", "missing/x.json").exit_code == 2


def test_needs_are_checked_first_and_rank_the_columns(run: Run, project: Path) -> None:
    """An unknown one lists all before anything runs; options of a run do not go with --from."""
    wrong = run("compare", "--need", "ordr")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "more-workers" in wrong.stderr
    found = run("compare", "--scenario", "replay", "--messages", "40", "--need", "replay",
                "--out", "ledger.json")  # fmt: skip
    assert "Take embedded:stream: it meets replay." in found.stdout
    again = run("compare", "--from", "ledger.json", "--need", "order")
    assert "No column meets order." in again.stdout
    refused = run("compare", "memory", "--from", "ledger.json", "--keys", "3")
    assert refused.exit_code == 2
    assert "leave out memory, --keys" in refused.stderr


def test_a_comparison_without_any_result_is_not_called_the_same(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial ended in an error: exit code 1, and the headline says so; warnings come once."""

    def fail(*_: object, **__: object) -> None:
        logging.getLogger("gearshift.test").warning("it gets full")
        raise PublishRefused("the disk is full")

    monkeypatch.setattr("gearshift.compare.trial.Trial.send", fail)
    result = run("compare", "--scenario", "ordering", "--messages", "40")
    assert result.exit_code == 1
    assert "none of 1 scenario has a result" in result.stdout
    assert result.stderr.count("it gets full") == 1
    assert "same" not in result.stdout


def test_what_a_terminal_might_obey_is_escaped(
    run: Run, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    """In errors, hints and logs: a stranger's text must not clear the screen or forge a line."""

    def fail(*_: object, **__: object) -> None:
        logging.getLogger("gearshift.test").warning("\x1b[2J log")
        raise PublishRefused("\x1b[2J text \r", hint="\x07 bell")

    monkeypatch.setattr(gearshift.Bus, "producer", fail)
    result = run("send", "orders", input="1\n")
    assert result.stderr.splitlines() == [
        "warning: \\x1b[2J log", "error: \\x1b[2J text \\r", "hint: \\x07 bell"
    ]  # fmt: skip


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("from_environment", [True, False], ids=["environment", "file"])
@pytest.mark.parametrize("backend", ["rabbitmq", "kafka"])
@pytest.mark.parametrize("arguments", OPENING, ids=" ".join)
def test_a_secret_is_never_printed(
    project: Path,
    free_port: int,
    backend: str,
    arguments: tuple[str, ...],
    from_environment: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither as it is, nor as it stands in a URL; not with -vv either."""
    quoted = "canary%2Fswordfish%40secret" if backend == "rabbitmq" else CANARY
    written = "${CANARY_PASSWORD}" if from_environment else quoted
    _unreachable(project, backend, free_port, written)
    monkeypatch.setenv("CANARY_PASSWORD", CANARY)
    result = CliRunner().invoke(cli, ["-vv", *arguments], input="1\n")
    assert "swordfish" not in result.output


def _unreachable(project: Path, backend: str, port: int, password: str = "x") -> None:
    profiles = {
        "rabbitmq": f'url = "amqp://app:{password}@127.0.0.1:{port}/%2F"',
        "kafka": f'bootstrap_servers = ["127.0.0.1:{port}"]\n'
        'connect_timeout_s = 0.3\nsasl_mechanism = "PLAIN"\nsasl_username = "app"\n'
        f'sasl_password = "{password}"',
    }
    text = f'[profiles.p]\nbackend = "{backend}"\n{profiles[backend]}\n[channels.orders]\n'
    (project / "gearshift.toml").write_text(text)


# ── Terminals and pipes ──────────────────────────────────────────────────────────────────────────


def _on_terminal(*arguments: str, env: dict[str, str]) -> str:
    """What the script writes on a terminal, stdout and stderr together."""
    leader, follower = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [command_path(), *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=clean | {"TERM": "xterm-256color"} | env,
    )
    os.close(follower)
    parts = []
    try:
        while part := os.read(leader, 65536):
            parts.append(part)
    except OSError:  # Linux says so when the other side is closed
        pass
    os.close(leader)
    process.wait(PATIENCE_S)
    return b"".join(parts).decode()


SHOWING = [("--help",), ("backends",), ("ls",), ("doctor",), ("config", "show"), ("nosuch",)]


@pytest.mark.parametrize("arguments", SHOWING, ids=" ".join)
def test_no_color_means_no_escape_codes(arguments: tuple[str, ...]) -> None:
    """A terminal gets colours, with NO_COLOR set plain text; both say the same in 80 columns."""
    coloured = _on_terminal(*arguments, env={"COLUMNS": "80"})
    plain = _on_terminal(*arguments, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert ESCAPE in coloured
    assert ESCAPE not in plain
    if arguments != ("doctor",):
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == plain.split()
    if "error:" not in plain:
        assert max(len(line) for line in plain.splitlines()) <= 80


@pytest.mark.parametrize("arguments", SHOWING, ids=" ".join)
def test_no_escape_codes_in_a_pipe(script: Script, arguments: tuple[str, ...]) -> None:
    """Also where a CI's variable would switch them on."""
    result = script(*arguments, env={"TERM": "xterm-256color", "GITHUB_ACTIONS": "true"})
    assert ESCAPE not in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [("tail", "events", "--from", "earliest"), ("--help",)])
def test_a_reader_that_goes_away_ends_it_quietly(
    script: Script, arguments: tuple[str, ...]
) -> None:
    """``gearshift ... | head -1``: no word of complaint."""
    assert script("send", "events", input=lines(list(range(2000)))).returncode == 0
    process = subprocess.Popen(
        [command_path(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    complaints = [line for line in process.stderr if not line.startswith("waiting for messages")]
    process.stderr.close()
    process.wait(PATIENCE_S)
    assert complaints == []


def test_interrupted_by_the_keyboard(run: Run) -> None:
    """Ctrl-C ends with 130 and without a traceback."""
    run("send", "events", input="1\n")
    process = subprocess.Popen(
        [command_path(), "tail", "events"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    assert "waiting for messages" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE_S) == 130
    assert rest.strip() == ""


# ── Small commands ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(script: Script, shell: str) -> None:
    """Each shell gets a script that asks ``gearshift``."""
    assert "_GEARSHIFT_COMPLETE" in script("completion", shell).stdout


def test_completion_knows_the_channels(script: Script) -> None:
    """What the shell asks for: the configured channels."""
    words = {"COMP_WORDS": "gearshift send o", "COMP_CWORD": "2"}
    result = script(env={"_GEARSHIFT_COMPLETE": "bash_complete"} | words)
    assert result.stdout.split() == ["plain,orders"]


def test_init_writes_settings_that_work(run: Run, project: Path) -> None:
    """The file is accepted as it is, and the embedded profile passes the doctor."""
    (project / "gearshift.toml").unlink()
    result = run("init")
    assert result.exit_code == 0
    assert "gearshift doctor" in result.stderr
    assert run("doctor").exit_code == 0


@pytest.mark.parametrize(
    ("backend", "profile"),
    [("sqlite", "dev"), ("rabbitmq", "rabbit"), ("kafka", "kafka"), ("memory", "memory")],
)
def test_init_selects_a_backend(
    run: Run, project: Path, backend: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every profile of the template is valid for its backend."""
    monkeypatch.setenv("RABBIT_PASSWORD", "x")
    assert run("init", "--force", "--backend", backend).exit_code == 0
    assert tomllib.loads((project / "gearshift.toml").read_text())["profile"] == profile
    with gearshift.open() as bus:
        assert bus.backend == backend


def test_init_never_overwrites(run: Run, project: Path) -> None:
    """Without --force the file stays as it is."""
    before = (project / "gearshift.toml").read_text()
    result = run("init")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert (project / "gearshift.toml").read_text() == before


def test_init_refuses_a_backend_that_nobody_offers(run: Run, project: Path) -> None:
    """A misspelt backend is not written into the file."""
    result = run("init", "--force", "--backend", "sqlit")
    assert result.exit_code == 2
    assert "'sqlite'" in result.stderr
    assert "sqlit" not in (project / "gearshift.toml").read_text().replace("sqlite", "")


def test_run_calls_the_worker(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """``run`` passes its arguments on, and the worker's number is the exit code."""
    seen: dict[str, object] = {}

    def run_target(target: str, **options: object) -> int:
        seen.update(options, target=target)
        return 7

    monkeypatch.setattr("gearshift.worker.supervisor.run_target", run_target)
    result = run(
        "run", "shop:app", "--processes", "3", "--metrics", "9102", "--profile", "memory"
    )  # fmt: skip
    assert result.exit_code == 7
    assert seen == {
        "target": "shop:app", "processes": 3, "config_path": None, "profile": "memory",
        "metrics": "9102",
    }  # fmt: skip


def test_a_users_module_may_configure_logging_in_any_command(project: Path, script: Script) -> None:
    """Its lines come out as it wants them: ``explain`` and ``compare`` load handlers too."""
    (project / "loud_shop.py").write_text(
        "import logging, gearshift\napp = gearshift.App()\n"
        "logging.basicConfig(format='SHOP %(message)s')\nlogging.error('loaded')\n"
        "@app.handler('orders')\ndef handle(value): ...\n"
    )
    result = script("explain", "--app", "loud_shop:app")
    assert result.returncode == 0, result.stderr
    assert "SHOP loaded" in result.stderr.splitlines()
