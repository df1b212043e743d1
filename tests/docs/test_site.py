"""The site is built strictly, works without a network, and has an entry for all that is public."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from axe_playwright_python.sync_playwright import Axe
from compare.browser import chromium
from sphinx.util.inventory import InventoryFile

from gearshift import errors, plugins
from gearshift.cli import COMMANDS, load_command
from gearshift.config.description import described

DOCS = Path(__file__).parents[2] / "docs"

#: Whatever one of these has in ``__all__`` is public.
PUBLIC = [
    "gearshift",
    "gearshift.aio",
    "gearshift.asgi",
    "gearshift.capabilities",
    "gearshift.conformance",
    "gearshift.deduplication",
    "gearshift.driver.contract",
    "gearshift.driver.handover",
    "gearshift.driver.helpers",
    "gearshift.driver.measuring",
    "gearshift.driver.settings",
    "gearshift.driver.values",
    "gearshift.errors",
    "gearshift.hooks",
    "gearshift.telemetry.health",
    "gearshift.telemetry.otel",
    "gearshift.telemetry.pages",
    "gearshift.telemetry.prometheus",
    "gearshift.telemetry.server",
    "gearshift.telemetry.tracing",
    "gearshift.testing",
    "gearshift.testing.fixtures",
]
#: In ``__all__``, and without an entry of its own: a module, and what others of ours share.
WITHOUT = {"gearshift.errors", "gearshift.hooks.hookimpl", "gearshift.capabilities.levels"}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, folder],
        capture_output=True, text=True, timeout=220,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder


def test_every_public_name_has_an_entry(site: Path) -> None:
    """With its docstring, under the name by which it is imported or the module that it is of."""
    entries = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    there = {name for kind in entries.data if kind.startswith("py:") for name in entries.data[kind]}
    missing = [
        name
        for module in PUBLIC
        for attribute in import_module(module).__all__
        if not {name := f"{module}.{attribute}", _home(module, attribute)} & (there | WITHOUT)
    ]
    assert missing == []


def _home(module: str, attribute: str) -> str:
    """Where an object that a module passes on was made."""
    value = getattr(import_module(module), attribute)
    return f"{getattr(value, '__module__', module)}.{getattr(value, '__qualname__', attribute)}"


def test_every_command_has_an_entry(site: Path) -> None:
    """With a heading of its own, and every option."""
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "reference/commands.html").read_text()))
    for path, command in _commands():
        assert f"gearshift {path}" in page
        for option in (option for param in command.params for option in param.opts):
            assert option in page or not option.startswith("-"), f"{path} {option}"


def _commands() -> Iterator[tuple[str, click.Command]]:
    for name in (name for names in COMMANDS.values() for name in names):
        command = load_command(name)
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        yield from ((f"{name} {more}".strip(), one) for more, one in inner.items())


def test_every_setting_has_an_entry(site: Path) -> None:
    """Of channels, and of each backend that comes with this version."""
    page = re.sub(r"<[^>]+>", "", (site / "reference/settings.html").read_text())
    channel_rows = (DOCS / "reference/settings.md").read_text()
    for backend in (None, *(entry.name for entry in plugins.available())):
        for table, settings in described(backend):
            assert f"[{table}]" in page
            assert [one.name for one in settings if one.name not in page] == []
    for setting in described(None)[0][1]:
        assert re.search(rf"^\|.*`{setting.name}`", channel_rows, re.MULTILINE), setting.name


def test_every_error_says_what_to_do() -> None:
    """Each has a row of its own: what happened, is it stored, what to do."""
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "reference/errors.md").read_text(), re.MULTILINE)
    assert sorted([*rows, "GearshiftError"]) == sorted(errors.__all__)


def test_it_works_without_a_network(site: Path) -> None:
    """No page loads anything from elsewhere, and the search has its index beside it."""
    loading = re.compile(r"<(?:script|img|iframe|link)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*")
    for page in site.rglob("*.html"):
        if "_downloads" not in page.parts:
            assert loading.findall(page.read_text()) == [], page
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text(), sheet
    assert "idempot" in (site / "searchindex.js").read_text()


def test_axe_finds_nothing(site: Path) -> None:
    """Names, contrast, landmarks, keyboard: on pages with all that others have."""
    with chromium() as browser:
        page = browser.new_page(color_scheme="dark")
        for name in ("index", "handlers", "reference/errors"):
            page.goto((site / f"{name}.html").as_uri())
            violations = Axe().run(page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"][:200]) for one in violations] == [], name
