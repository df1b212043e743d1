"""The versions that we say we support are those that the tests run on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from machines.pythons import SUITES

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (\w+) \| ([\d., ]+) \|$", re.MULTILINE)


def test_the_pythons_that_are_promised_are_those_that_are_run() -> None:
    """In the README, the classifiers and `make pythons`; the oldest is the one required."""
    project = _project()
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if ":: Python :: 3." in c]
    assert named == list(SUITES)
    assert _table()["Python"] == list(SUITES)
    assert project["requires-python"] == f">={named[0]}"


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _table() -> dict[str, list[str]]:
    section = (ROOT / "README.md").read_text().partition("## Versions\n")[2].partition("\n## ")[0]
    return {name: versions.split(", ") for name, versions in re.findall(_ROW, section)}
