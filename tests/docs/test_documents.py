"""What the documents show works: snippets are run, commands parsed, links followed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from support.documents import DOCUMENTS, ROOT, Snippet, prose_of, snippets_of

from gearshift.cli import cli, load_command
from gearshift.operations.explain import explain, load_profile

#: Profiles for the settings that a document shows without any.
PROFILES = """
[profiles.dev]
backend = "sqlite"
[profiles.rabbit]
backend = "rabbitmq"
[profiles.kafka]
backend = "kafka"
bootstrap_servers = ["localhost:9092"]
"""

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"`(gearshift [^`\n]+)`")


def _snippets(*languages: str) -> list[Snippet]:
    return [s for path in DOCUMENTS for s in snippets_of(path) if s.language in languages]


def _is_a_command(snippet: Snippet) -> bool:
    return snippet.language == "sh" and snippet.text.startswith(("gearshift ", "echo "))


def _with_commands() -> list[Path]:
    """Documents with commands that end by themselves; the tutorial's have a test of their own."""
    documents = [path for path in DOCUMENTS if path.name != "tutorial.md"]
    return [path for path in documents if any(map(_is_a_command, snippets_of(path)))]


def _id(value: object) -> str:
    return value.place if isinstance(value, Snippet) else str(value)


def test_there_is_something_to_check() -> None:
    """Else these tests could not fail."""
    assert ROOT / "README.md" in DOCUMENTS
    assert len(_snippets("python")) >= 2
    assert len(_snippets("toml")) >= 2
    assert _with_commands()


def _is_tests(snippet: Snippet) -> bool:
    return "\ndef test_" in snippet.text


@pytest.mark.parametrize(
    "snippet", [one for one in _snippets("python") if not _is_tests(one)], ids=_id
)
def test_python_runs(snippet: Snippet, tmp_path: Path) -> None:
    """As it stands, in an empty folder, without a server."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", snippet.text],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_tests_that_are_shown_pass(tmp_path: Path) -> None:
    """Those of documents and of the order service, with the fixture that users have."""
    shutil.copytree(ROOT / "docs" / "examples" / "order_service", tmp_path / "order_service")
    for snippet in filter(_is_tests, _snippets("python")):
        name = re.sub(r"\W", "_", snippet.place)
        (tmp_path / f"test_{name}.py").write_text(snippet.text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "gearshift.testing.fixtures"],
        cwd=tmp_path, env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_example_prints_what_it_was_sent(tmp_path: Path) -> None:
    """The README's ten lines do what they look like."""
    first = next(s for s in _snippets("python") if s.place.startswith("README.md"))
    done = subprocess.run(
        [sys.executable, "-c", first.text], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "processing 123\n"


def test_the_first_example_runs_with_the_first_settings(tmp_path: Path) -> None:
    """Whoever copies both from the README sees the same."""
    program, settings = (
        next(s for s in _snippets(language) if s.place.startswith("README.md")).text
        for language in ("python", "toml")
    )
    (tmp_path / "gearshift.toml").write_text(settings)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("processing 123\n", "")


@pytest.mark.parametrize("snippet", _snippets("toml"), ids=_id)
def test_settings_are_valid(snippet: Snippet, tmp_path: Path) -> None:
    """Each profile and channel, with its backend's own checks; other TOML files at least parse."""
    sections = tomllib.loads(snippet.text)
    if not sections.keys() <= {"profile", "profiles", "channels"}:
        return
    text = snippet.text if "profiles" in sections else snippet.text + PROFILES
    (tmp_path / "gearshift.toml").write_text(text)
    for name in tomllib.loads(text)["profiles"]:
        assert explain(load_profile(None, name)) or "channels" not in sections


@pytest.mark.parametrize("document", _with_commands(), ids=lambda path: path.name)
def test_commands_run(document: Path, tmp_path: Path) -> None:
    """In their order, for they build on one another, on what ``gearshift init`` chooses."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for snippet in filter(_is_a_command, snippets_of(document)):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", snippet.text],
            cwd=tmp_path, env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, snippet.place + done.stdout + done.stderr
        assert "error:" not in done.stderr, snippet.place


def _commands() -> list[tuple[str, str]]:
    """Every ``gearshift ...`` in a shell block or between backticks, and where.

    Not in notes on decisions, which may be of what is still to come.
    """
    found = []
    for path in [path for path in DOCUMENTS if path.parent.name != "design"]:
        place = str(path.relative_to(ROOT))
        for snippet in snippets_of(path):
            lines = snippet.text.splitlines() if snippet.language == "sh" else []
            found += [
                (line[line.index("gearshift ") :], place)
                for line in lines
                if re.match(r"(echo .*\| )?gearshift ", line)
            ]
        prose = prose_of(path)
        found += [(command, place) for command in _COMMAND.findall(prose)]
    return found


@pytest.mark.parametrize(("command", "place"), _commands())
def test_commands_exist(command: str, place: str) -> None:
    """Name and options are known; capitals stand for values."""
    words = shlex.split(
        command.partition(" | ")[0].replace("[", "").replace("]", ""), comments=True
    )
    group: click.Command = cli
    names = words[1:]
    context = click.Context(cli)
    while names and isinstance(group, click.Group) and not names[0].startswith("-"):
        if names[0] == "...":
            return
        known = group.get_command(context, names[0])
        if known is not None and group is cli:
            known = load_command(names[0])
        assert known is not None, f"{place}: there is no {command!r}"
        group, names = known, names[1:]
    options = {option for parameter in group.params for option in parameter.opts}
    for name in names:
        if name.startswith("-"):
            assert name.partition("=")[0] in options, f"{place}: {command!r} has no {name}"


def _links() -> list[tuple[Path, str]]:
    return [
        (path, target)
        for path in DOCUMENTS
        for target in _LINK.findall(prose_of(path))
        if not re.match(r"[a-z]+:", target)
    ]


@pytest.mark.parametrize(
    ("document", "target"), _links(), ids=lambda value: getattr(value, "name", value)
)
def test_links_lead_somewhere(document: Path, target: str) -> None:
    """To a file of the project, and to a heading that it has."""
    name, _, anchor = target.partition("#")
    file = (document.parent / name).resolve() if name else document
    assert file.exists(), f"{document.relative_to(ROOT)}: {target}"
    assert file.is_relative_to(ROOT)
    if anchor:
        headings = re.findall(r"^#+ +(.+)$", prose_of(file), re.MULTILINE)
        assert anchor in [_anchor(heading) for heading in headings]


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_make_target_that_a_document_names_is_there() -> None:
    """``make demo`` and its like."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        text = path.read_text()
        named = re.findall(r"(?:^|`)make ((?:[a-z]+ ?)+)", text, re.MULTILINE)
        assert {word for words in named for word in words.split()} <= targets, path
