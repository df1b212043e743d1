"""Our own log lines: how many alike there may be, and where they go."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

import pytest

from gearshift._core import logs


@contextlib.contextmanager
def bare() -> Iterator[logging.Logger]:
    """Logging as in a new process, also without pytest's handlers; gives our logger."""
    root, ours = logging.getLogger(), logging.getLogger("gearshift")
    before = root.handlers, ours.handlers, ours.level
    root.handlers, ours.handlers = [], [logging.NullHandler()]
    try:
        yield ours
    finally:
        root.handlers, ours.handlers = before[:2]
        ours.setLevel(before[2])


def test_of_many_lines_alike_some_are_written_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Per text and first argument; the first one of the next period says how many others."""
    now = 0.0
    logger = logging.getLogger("gearshift.test")
    limited = logs.LimitedLog(logger, burst=2, period_s=60.0, clock=lambda: now)
    for number in range(5):
        limited.warning("%s failed, %d", "orders", number)
    limited.warning("%s failed, %d", "events", 5)
    now = 61.0
    limited.warning("%s failed, %d", "orders", 6)
    limited.warning("%s failed, %d", "orders", 7)
    assert [record.getMessage() for record in caplog.records] == [
        "orders failed, 0", "orders failed, 1", "events failed, 5",
        "orders failed, 6 (and 3 more like this)", "orders failed, 7",
    ]  # fmt: skip


def test_lines_go_to_stderr_where_nobody_has_configured_logging(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From INFO on and without secrets; the root logger is not touched."""
    with bare() as ours:
        logs.to_stderr(lambda text: text.replace("canary", "***"))
        logs.to_stderr()  # not twice
        ours.getChild("worker").info("started with %s", "canary")
        assert logging.getLogger().handlers == []
    assert capsys.readouterr().err.count("INFO gearshift.worker started with ***") == 1


@pytest.mark.parametrize("name", ["", "gearshift"])
def test_a_configuration_of_the_service_is_left_alone(name: str) -> None:
    """With a handler for all or for ours we add none, and set no level."""
    with bare() as ours:
        logging.getLogger(name).addHandler(logging.StreamHandler(io.StringIO()))
        before = list(ours.handlers), ours.level
        logs.to_stderr()
        assert (ours.handlers, ours.level) == before


def test_a_service_that_configures_logging_later_sees_each_line_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in its first handler: from then on its own configuration decides."""
    own = io.StringIO()
    with bare() as ours:
        logs.to_stderr()
        logging.getLogger().addHandler(logging.StreamHandler(own))
        ours.warning("lost")
    assert own.getvalue() == "lost\n"
    assert capsys.readouterr().err == ""
