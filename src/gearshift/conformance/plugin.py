"""The pytest plugin: a module that defines ``gearshift_backend`` gets every behaviour as a test.

::

    @pytest.fixture(scope="session", params=list(Semantics))
    def gearshift_backend(request, tmp_path_factory) -> Harness:
        return Harness(config=load(...), semantics=request.param)

Options: ``--conformance-report=FILE`` writes all results as JSON and adds to what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gearshift.conformance.behaviour import Behaviour, Status, execute
from gearshift.conformance.harness import Harness
from gearshift.conformance.matrix import Manifest, Matrix
from gearshift.conformance.suite import SUITE

FIXTURE = "gearshift_backend"

_MATRIX = pytest.StashKey[Matrix]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's options."""
    group = parser.getgroup("gearshift", "conformance of Gearshift backends")
    group.addoption(
        "--conformance-report", metavar="FILE", type=Path, help="write all results as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin with an empty matrix."""
    config.stash[_MATRIX] = Matrix()


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
        column = request.config.stash[_MATRIX].column(gearshift_backend.label)
        if not column.capabilities:
            column.capabilities = gearshift_backend.capabilities.as_dict()
            column.server = gearshift_backend.server()
        result = column.results[behaviour.name] = execute(behaviour, gearshift_backend)
        if result.status.is_failure:
            pytest.fail(f"{result.status}: {result.text}", pytrace=False)

    test.__doc__ = behaviour.sentence
    return test


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Write the report, and fail a run of the whole kit that left something out."""
    matrix = session.config.stash[_MATRIX]
    if file := session.config.getoption("--conformance-report"):
        matrix.save(file)
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per backend, and what the kit could not say."""
    for column in terminalreporter.config.stash[_MATRIX].columns.values():
        counts = {
            status: sum(result.status is status for result in column.results.values())
            for status in Status
        }
        shown = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        left_out = len(column.missing(Manifest.names()))
        more = f", {left_out} of the manifest not selected" if left_out else ""
        terminalreporter.write_line(f"conformance of {column.label}: {column.badge}; {shown}{more}")
