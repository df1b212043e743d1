"""Calls that take too long are reported once, and those that end in time are not."""

from __future__ import annotations

import logging
import threading

import pytest
from support.waiting import until

from gearshift.worker.overdue import Overdue


@pytest.fixture
def overdue(caplog: pytest.LogCaptureFixture) -> Overdue:
    caplog.set_level(logging.WARNING, "gearshift.worker")
    return Overdue()


def test_a_call_that_takes_too_long_is_reported_once(
    overdue: Overdue, caplog: pytest.LogCaptureFixture
) -> None:
    """While it runs; the one beside it, which has more time, is not."""
    with overdue.watch(60.0, lambda: "the patient"), overdue.watch(0.01, lambda: "the late"):
        assert until(lambda: caplog.messages)
    assert caplog.messages == ["the late takes longer than it may, and goes on"]
    overdue.close()


def test_a_call_that_ends_in_time_is_not_reported(
    overdue: Overdue, caplog: pytest.LogCaptureFixture
) -> None:
    """Its limit passes, and another one's is reported after it."""
    with overdue.watch(0.01, lambda: "the quick"):
        pass
    with overdue.watch(0.02, lambda: "the late"):
        assert until(lambda: caplog.messages)
    assert caplog.messages == ["the late takes longer than it may, and goes on"]
    overdue.close()


def test_without_a_limit_nothing_is_started(overdue: Overdue) -> None:
    """No thread, and no call of what would be said."""
    threads = threading.active_count()
    with overdue.watch(None, lambda: pytest.fail("nobody asked")):
        assert threading.active_count() == threads
