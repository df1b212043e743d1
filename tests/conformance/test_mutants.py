"""The kit is only as good as what it catches: every mutant dies by its named checker."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance.mutants import MUTANTS, Mutant

from gearshift import config, plugins
from gearshift.conformance.behaviour import Status, execute
from gearshift.conformance.harness import Harness, shared
from gearshift.conformance.suite import SUITE

BEHAVIOURS = {behaviour.name: behaviour for behaviour in SUITE}


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=lambda mutant: f"{mutant.name} ({mutant.semantics})".replace(" ", "-")
)
def test_a_mutant_is_killed_by_its_checker(mutant: Mutant, tmp_path: Path) -> None:
    """The behaviour fails, and the checker that says so is the one meant for this damage."""
    file = tmp_path / "gearshift.toml"
    file.write_text('[profiles.p]\nbackend = "memory"\n')
    harness = Harness(
        config=config.load(file),
        semantics=mutant.semantics,
        plugin=shared(mutant.plugin(plugins.load("memory"))),
        patience_s=1.5,
    )
    with mutant.patched():
        result = execute(BEHAVIOURS[mutant.behaviour], harness)
    assert result.status is Status.FAILED, f"survived: {result}"
    assert mutant.checker in result.checkers, result.text
