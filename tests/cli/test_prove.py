"""``gearshift prove``: exit codes and forms of the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from cli.conftest import Run

APP = """
import gearshift

app, table = gearshift.App(), {}

@app.handler("orders")
def keep(cents: int, delivery: gearshift.Delivery) -> None:
    table[%s] = table.get(%s, 0) + cents

def examples():
    return [5, 7]

def %s():
    return table
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds another one's module."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)


def _write(project: Path, key: str, state: str = "state") -> None:
    (project / "shop.py").write_text(APP % (key, key, state))


def test_what_is_not_safe_ends_with_5_and_its_story(run: Run, project: Path) -> None:
    """For people, for programs and for CI."""
    _write(project, "'total'")
    done = run("prove", "shop:app", "--profile", "kafka", "--cases", "60", "--junit", "out.xml")
    assert done.exit_code == 5
    assert "! the connection was lost" in done.stdout
    suite = Xml.parse(project / "out.xml").getroot()
    assert suite.attrib["failures"] == str(len(suite.findall(".//failure"))) != "0"


def test_a_proof_as_json(run: Run, project: Path) -> None:
    """The same facts, with the profile of the settings and its channels."""
    _write(project, "'total'")
    done = run("prove", "shop:app", "--profile", "memory", "--cases", "60", "-o", "json")
    found = json.loads(done.stdout)
    assert (found["verdict"], found["backend"]) == ("not safe", "memory")
    assert found["stories"][0]["messages"][0]["value"] == 5


def test_what_is_safe_ends_with_0(run: Run, project: Path) -> None:
    """A row for each id, that is set and not added to."""
    text = APP % ("delivery.id", "'none'", "state")
    (project / "shop.py").write_text(text)
    assert run("prove", "shop:app", "--profile", "redis", "--cases", "60").exit_code == 0


def test_what_cannot_be_said_ends_with_1(run: Run, project: Path) -> None:
    """Without a state() nothing is called safe."""
    text = APP % ("delivery.id", "'none'", "shown")
    (project / "shop.py").write_text(text)
    done = run("prove", "shop:app", "--profile", "rabbitmq", "--cases", "60")
    assert done.exit_code == 1
    assert "state()" in done.stdout
