"""What ``import gearshift`` brings, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import gearshift

#: Clients of brokers, the command line's libraries, tests' libraries.
NOT_IMPORTED = {"pika", "confluent_kafka", "click", "rich", "rich_click", "pytest", "tomli_w"}


def _modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules, sep='\\n')"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_importing_brings_no_client_and_no_command_line() -> None:
    """In a fresh interpreter; no backend of ours either, which are found by name when opened."""
    loaded = _modules_after("import gearshift")
    assert not NOT_IMPORTED & loaded
    assert not {name for name in loaded if name.startswith(("gearshift_", "gearshift.embedded."))}
    assert not {"gearshift.cli", "gearshift.conformance", "gearshift.compare"} & loaded


def test_opening_one_backend_imports_no_other() -> None:
    """Only the one that the profile names."""
    loaded = _modules_after("import gearshift; gearshift.open().close()")
    assert "gearshift.embedded.sqlite" in loaded
    assert "gearshift.embedded.memory" not in loaded
    assert not NOT_IMPORTED & loaded


def test_the_public_names_are_exact() -> None:
    """``__all__`` is what a user may rely on: all of it there, and nothing else in sight."""
    public = {
        name
        for name, value in vars(gearshift).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public | {"errors"} == set(gearshift.__all__)
    assert gearshift.__all__ == sorted(gearshift.__all__)


def test_star_import() -> None:
    """Every name of ``__all__`` can be had."""
    names: dict[str, object] = {}
    exec("from gearshift import *", names)
    assert set(gearshift.__all__) <= names.keys()
