"""What ``import gearshift`` brings, and what it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gearshift

#: Clients of brokers, the libraries of the extras, tests' libraries.
EXTRAS = {"click", "rich", "rich_click", "jinja2", "prometheus_client"}
NOT_IMPORTED = EXTRAS | {"pika", "confluent_kafka", "redis", "pytest", "tomli_w", "asyncio"}

#: In a fresh interpreter, as if nothing but Gearshift's own requirements were installed.
LEAN = f"import sys\nfor name in {sorted(EXTRAS)}: sys.modules[name] = None\n"


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def _modules_after(code: str) -> set[str]:
    done = _run(code + "\nimport sys; print(*sys.modules, sep='\\n')")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_brings_nothing_that_is_not_used_before_open() -> None:
    """In a fresh interpreter: no other module of ours, no client, and none of the slow ones."""
    loaded = _modules_after("import gearshift")
    assert {name for name in loaded if name.startswith("gearshift")} == {"gearshift"}
    slow = {"inspect", "dataclasses", "importlib.metadata", "logging", "msgspec", "pluggy"}
    assert not (NOT_IMPORTED | slow) & loaded


def test_a_name_brings_what_it_needs_only() -> None:
    """A service's own modules take names from ``gearshift`` before there is a broker."""
    loaded = _modules_after("from gearshift import GearshiftError, Message, Semantics, Start")
    assert not {"gearshift.bus", "gearshift.config", "importlib.metadata"} & loaded


def test_help_brings_no_command_and_no_broker() -> None:
    """``gearshift --help`` is the command line's own table."""
    loaded = _modules_after(
        "import sys; sys.argv = ['gearshift', '--help']\nfrom gearshift.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass"
    )
    assert {"gearshift.cli", "rich_click"} <= loaded
    ours = {name for name in loaded if name.startswith("gearshift.")}
    assert not {name for name in ours if name.startswith(("gearshift.bus", "gearshift.config"))}
    assert "gearshift.cli.send" not in ours
    assert not {"msgspec", "pluggy", "asyncio", "jinja2", "pika", "confluent_kafka"} & loaded


def test_opening_one_backend_imports_no_other() -> None:
    """Only the one that the profile names."""
    loaded = _modules_after("import gearshift; gearshift.open().close()")
    assert "gearshift.embedded.sqlite" in loaded
    assert "gearshift.embedded.memory" not in loaded
    assert not {"gearshift.cli", "gearshift.conformance", "gearshift.compare"} & loaded
    assert not NOT_IMPORTED & loaded


def test_a_service_needs_no_extra() -> None:
    """Handlers run, messages are sent and received, without the libraries of any extra."""
    done = _run(
        LEAN + "import gearshift, gearshift.worker.worker, gearshift.operations.doctor\n"
        "with gearshift.open('memory://') as bus:\n"
        "    bus.producer('orders').send(1)\n"
        "    (delivery,) = bus.consumer('orders').receive()\n"
        "    delivery.ack()\n"
        "from gearshift import compare\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("from gearshift.compare.report import render", "compare"),
        (
            "import gearshift\nfrom gearshift.telemetry.server import TelemetryServer\n"
            "TelemetryServer(gearshift.open('memory://'), '127.0.0.1', 0)",
            "prometheus",
        ),
    ],
)
def test_a_missing_extra_is_one_error_with_the_command(code: str, extra: str) -> None:
    """An ImportError of ours; nothing of the import system around it."""
    done = _run(LEAN + code)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("gearshift.errors.MissingExtra: ")
    assert f"pip install 'gearshift[{extra}]'" in last
    assert "ModuleNotFoundError" not in done.stderr


def test_the_command_without_its_libraries_says_what_to_install() -> None:
    """In one line, without a traceback; exit code 2."""
    done = _run(LEAN + "from gearshift.__main__ import main; main()")
    assert done.returncode == 2
    assert "pip install 'gearshift[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_compare_without_its_libraries_says_what_to_install() -> None:
    """Before anything is run, not when the report is to be written."""
    done = _run(
        "import sys; sys.modules['jinja2'] = None; sys.argv = ['gearshift', 'compare', '--out', "
        "'/tmp/no.html']\nfrom gearshift.__main__ import main; main()"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'gearshift[compare]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_public_names_are_exact() -> None:
    """``__all__`` is what a user may rely on: each can be had, and nothing else is in sight."""
    assert gearshift.__all__ == sorted(gearshift.__all__)
    assert set(gearshift.__all__) == {"errors", "open"} | {
        name for names in gearshift._NAMES.values() for name in names
    }
    shown = {name for name in dir(gearshift) if not name.startswith("_")} - {"TYPE_CHECKING"}
    modules = {name.split(".")[1] for name in sys.modules if name.startswith("gearshift.")}
    assert shown - modules == set(gearshift.__all__) - modules
    with pytest.raises(AttributeError, match="no attribute 'Borker'"):
        gearshift.Borker  # noqa: B018


def test_star_import() -> None:
    """Every name of ``__all__`` can be had."""
    names: dict[str, object] = {}
    exec("from gearshift import *", names)
    assert set(gearshift.__all__) <= names.keys()
