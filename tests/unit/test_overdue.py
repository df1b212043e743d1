"""Calls that take too long are reported once, and those that end in time are not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from support.waiting import until

from gearshift.worker.overdue import Overdue


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def overdue(clock: Clock, caplog: pytest.LogCaptureFixture) -> Iterator[Overdue]:
    caplog.set_level(logging.WARNING, "gearshift.worker")
    overdue = Overdue(clock)
    yield overdue
    overdue.close()


def test_only_a_call_that_takes_too_long_is_reported_and_once(
    overdue: Overdue, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither one that has ended before its limit, nor one that has more time."""
    with overdue.watch(1.0, lambda: "the quick"):
        pass
    with overdue.watch(60.0, lambda: "the patient"), overdue.watch(2.0, lambda: "the late"):
        clock.now = 3.0
        for _ in range(2):
            with overdue.watch(60.0, lambda: "another, with which the time is looked at"):
                assert until(lambda: caplog.messages)
    assert caplog.messages == ["the late takes longer than it may, and goes on"]


def test_without_a_limit_nothing_is_started(overdue: Overdue) -> None:
    """No thread, and no call of what would be said."""
    threads = threading.active_count()
    with overdue.watch(None, lambda: pytest.fail("nobody asked")):
        assert threading.active_count() == threads
