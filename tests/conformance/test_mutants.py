"""The kit is only as good as what it catches: every mutant dies by its named checker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conformance import late_word
from conformance.conftest import embedded
from conformance.mutants import MUTANTS, Mutant
from support.waiting import PATIENCE_S

from gearshift import config, plugins
from gearshift.conformance.execution import Status, execute
from gearshift.conformance.harness import Faults, Harness, shared
from gearshift.conformance.suite import SUITE
from gearshift.message import Semantics

BEHAVIOURS = {behaviour.name: behaviour for behaviour in SUITE}


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=lambda mutant: f"{mutant.name} ({mutant.semantics})".replace(" ", "-")
)
def test_a_mutant_is_killed_by_its_checker(mutant: Mutant, tmp_path: Path) -> None:
    """The behaviour fails, and the checker that says so is the one meant for this damage."""
    plugin = shared(mutant.plugin(plugins.load("memory")))
    # Some have the kit wait for what never comes: not longer than others need to be found.
    harness = embedded("memory", mutant.semantics, tmp_path, plugin=plugin, patience_s=6.0)
    with mutant.patched():
        result = execute(BEHAVIOURS[mutant.behaviour], harness)
    assert result.status is Status.FAILED, f"survived: {result}"
    assert mutant.checker in result.checkers, result.text


def test_the_late_word_of_a_frozen_worker_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This damage is done by another process, which finds the backend as one that is installed."""
    info = tmp_path / "late_word-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late-word\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[gearshift.backends]\n{late_word.NAME} = {late_word.__name__}\n"
    )
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(tests))))
    file = tmp_path / "gearshift.toml"
    file.write_text(f'[profiles.p]\nbackend = "{late_word.NAME}"\npath = "kit.db"\nlease_s = 3.0\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    harness = Harness(
        config=config.load(file),
        semantics=Semantics.QUEUE,
        faults=Faults(broker=None, cable=None, workers=True),
        lease_s=3.0,
        patience_s=PATIENCE_S,
    )
    result = execute(BEHAVIOURS["a_frozen_worker_harms_nobody"], harness)
    assert result.status is Status.FAILED, f"survived: {result}"
    assert "stale-settle" in result.checkers, result.text
