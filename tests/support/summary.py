"""pytest hooks: what took long, shown before pytest's own last line."""

from __future__ import annotations

from collections import defaultdict

import pytest

_SHOWN = 20
_WORTH_SHOWING_S = 1.0


def pytest_configure(config: pytest.Config) -> None:
    """Collect times in the process that reports to people, which is not a worker of xdist."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Times())


class _Times:
    def __init__(self) -> None:
        self._tests: dict[str, float] = defaultdict(float)
        self._lanes: dict[str, float] = defaultdict(float)
        self._workers: dict[str, dict[str, None]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up set-up, call and teardown."""
        test, lane = _split(report.nodeid)
        self._tests[test] += report.duration
        if lane:
            self._lanes[lane] += report.duration
            self._workers[lane][report.node.gateway.id] = None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The slowest tests, and the lanes of xdist with the workers that ran them."""
        _show(terminalreporter, "slowest tests, in seconds", _longest(self._tests)[:_SHOWN])
        lanes = [
            (f"{lane} ({', '.join(self._workers[lane])})", taken_s)
            for lane, taken_s in _longest(self._lanes)
        ]
        _show(terminalreporter, "lanes, in seconds", lanes)


def _split(nodeid: str) -> tuple[str, str]:
    """The test and its lane, which xdist has put after an @; a parameter may hold an @ as well."""
    head, _, parameters = nodeid.rpartition("]")
    test, _, lane = parameters.partition("@")
    return (f"{head}]{test}" if head else test), lane


def _longest(taken: dict[str, float]) -> list[tuple[str, float]]:
    worth = [(name, taken_s) for name, taken_s in taken.items() if taken_s >= _WORTH_SHOWING_S]
    return sorted(worth, key=lambda one: -one[1])


def _show(terminal: pytest.TerminalReporter, title: str, rows: list[tuple[str, float]]) -> None:
    if rows:
        terminal.write_sep("-", title)
    for name, taken_s in rows:
        terminal.write_line(f"{taken_s:7.1f}  {name}")
