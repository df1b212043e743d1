"""Plugins are shown in their order, and one that cannot be used is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Run, records
from support.plugins import install_plugin

PLUGIN = """
from gearshift.hooks import hookimpl

class Plugin:
    @hookimpl(wrapper=True)
    def gearshift_handle(self, handler):
        return (yield)
"""

SERVICE = """
import gearshift

app = gearshift.App()

@app.around
def timed(deliveries):
    yield

@app.handler("orders")
def bill(order: int) -> None: ...
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a plugin that works, ``acme``, and one that does not, ``broken``."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    install_plugin(folder, PLUGIN)
    install_plugin(folder, "import nothing_of_that_name\n", "broken")
    (folder / "service_of_plugins.py").write_text(SERVICE)
    yield folder
    for name in ("acme_plugin", "broken_plugin", "service_of_plugins"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("site")
def test_config_show_lists_plugins_in_the_order_in_which_they_are_called(run: Run) -> None:
    """The application's first; one that cannot be used has a row that says why."""
    result = run("config", "show", "--app", "service_of_plugins:app", "-o", "json")
    rows = {row["key"]: row for row in json.loads(result.stdout)}
    assert rows["hooks.gearshift_handle"]["value"] == "timed, acme of acme-plugin 1.0"
    assert "cannot be used" in rows["plugins.broken"]["value"]
    assert "nothing_of_that_name" in rows["plugins.broken"]["value"]
    assert rows["plugins.broken"]["origin"] == "broken-plugin 1.0"


@pytest.mark.usefixtures("site")
def test_doctor_names_the_plugin_that_cannot_be_used(run: Run) -> None:
    """It says which distribution to uninstall, and what works."""
    result = run("doctor", "-o", "jsonl")
    checks = [check for check in records(result.stdout) if check["step"] == "plugin"]
    assert [(check["subject"], check["status"]) for check in checks] == [
        ("acme", "ok"), ("broken of broken-plugin 1.0", "failed"),
    ]  # fmt: skip
    assert "nothing_of_that_name" in checks[1]["detail"]
    assert "broken-plugin" in checks[1]["hint"]
    assert result.exit_code == 2
