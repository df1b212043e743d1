"""The kit ten times at once. The soak does the same on each real broker."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from conformance.conftest import embedded
from support.waiting import PATIENCE_S

from gearshift.conformance import Area, Needs, Status, execute_together
from gearshift.conformance.behaviour import Behaviour, behaviour
from gearshift.conformance.kit import Kit
from gearshift.conformance.suite import SUITE
from gearshift.message import Semantics

COPIES = 10


@pytest.mark.timeout(600)
def test_ten_runs_at_once_find_nothing(tmp_path: Path) -> None:
    """One bus knows nothing of another's channels, groups and positions, however busy it is."""
    here = embedded("memory", Semantics.STREAM, tmp_path, pace=0.1, lease_s=2.0)
    results = list(execute_together(SUITE, here, COPIES))
    assert len(results) == COPIES * sum(behaviour.needs is None for behaviour in SUITE)
    assert [result for result in results if result.status.is_failure] == []


def test_all_copies_run_at_the_same_time(tmp_path: Path) -> None:
    """Each waits until all are there; what breaks something is left out, a failure is told."""
    meeting = threading.Barrier(3, timeout=PATIENCE_S)

    @behaviour(Area.STRESS)
    def together(kit: Kit) -> None:
        meeting.wait()

    @behaviour(Area.STRESS)
    def wrong(kit: Kit) -> None:
        kit.require(False, "content", "wrong")

    harmful: Behaviour = replace(together, name="harmful", needs=Needs.BROKER)
    chosen = [replace(together, deliveries=0), wrong, harmful]
    results = list(execute_together(chosen, embedded("memory", Semantics.QUEUE, tmp_path), 3))
    assert sorted((result.behaviour, result.status) for result in results) == [
        ("together", Status.VERIFIED),
        ("together", Status.VERIFIED),
        ("together", Status.VERIFIED),
        ("wrong", Status.FAILED),
        ("wrong", Status.FAILED),
        ("wrong", Status.FAILED),
    ]
