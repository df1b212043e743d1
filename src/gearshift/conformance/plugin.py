"""The pytest plugin: a module that defines ``gearshift_backend`` gets every behaviour as a test.

``pytest_plugins = ["gearshift.conformance.plugin"]`` in the top ``conftest.py`` loads it.

::

    @pytest.fixture(scope="session", params=[Semantics.QUEUE])
    def gearshift_backend(request, tmp_path_factory) -> Harness:
        return Harness(config=load(...), semantics=request.param)

Options: ``--conformance-report=FILE`` writes all results as JSON and adds to what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gearshift.conformance.behaviour import Behaviour
from gearshift.conformance.execution import Result, Status, execute
from gearshift.conformance.harness import Harness
from gearshift.conformance.matrix import BackendResults, Matrix
from gearshift.conformance.suite import SUITE
from gearshift.operations.cleanup import sigterm_raises

FIXTURE = "gearshift_backend"

_MATRIX = pytest.StashKey[Matrix]()
_PROPERTY = "gearshift-conformance"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's options."""
    group = parser.getgroup("gearshift", "conformance of Gearshift backends")
    group.addoption(
        "--conformance-report", metavar="FILE", type=Path, help="write all results as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin with an empty matrix."""
    config.stash[_MATRIX] = Matrix()
    config.pluginmanager.register(_Collector(config), "gearshift-conformance-results")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    """A module that speaks of our fixture is collected by us."""
    if FIXTURE.encode() in module_path.read_bytes():
        return _ConformanceModule.from_parent(parent, path=module_path)
    return None


class _ConformanceModule(pytest.Module):
    """A test module that may define the fixture; then it has the kit's tests beside its own."""

    def collect(self) -> Any:
        if hasattr(self.obj, FIXTURE):
            for behaviour in SUITE:
                setattr(self.obj, f"test_{behaviour.name}", _test(behaviour))
        return super().collect()


def _test(behaviour: Behaviour) -> Callable[..., None]:
    def test(gearshift_backend: Harness, request: pytest.FixtureRequest) -> None:
        with sigterm_raises():  # pytest itself would end at once, and leave channels behind
            result = execute(behaviour, gearshift_backend)
        # Properties travel with the report, also from another process.
        request.node.user_properties.append((_PROPERTY, _record(gearshift_backend, result)))
        if result.status.is_failure:
            pytest.fail(f"{result.status}: {result.text}", pytrace=False)

    test.__doc__ = behaviour.sentence
    return test


def _record(harness: Harness, result: Result) -> dict[str, Any]:
    today = str(date.today())
    column = BackendResults(harness.label, harness.server, today, harness.capabilities.as_dict())
    column.results[result.behaviour] = result
    record: dict[str, Any] = msgspec.to_builtins(column)
    return record


class _Collector:
    """Gathers the results of all tests, whichever process ran them."""

    def __init__(self, config: pytest.Config) -> None:
        self._matrix = config.stash[_MATRIX]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties if report.when == "call" else ():
            if name == _PROPERTY:
                self._matrix.add(msgspec.convert(value, BackendResults))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report, once, in the process that has gathered everything."""
    file = session.config.getoption("--conformance-report")
    if file and not hasattr(session.config, "workerinput"):
        session.config.stash[_MATRIX].save(file)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per backend, and what the kit could not say."""
    for column in terminalreporter.config.stash[_MATRIX].columns.values():
        counts = {
            status: sum(result.status is status for result in column.results.values())
            for status in Status
        }
        shown = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        left_out = len(column.missing())
        more = f", {left_out} of the manifest not selected" if left_out else ""
        terminalreporter.write_line(f"conformance of {column.label}: {column.badge}; {shown}{more}")
