"""The kit itself: its manifest, its vocabulary, and its refusal to call nothing a success."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from conformance.conftest import embedded

from gearshift.capabilities import Capabilities
from gearshift.conformance import Area, Harness, Status, execute
from gearshift.conformance import kit as kit_module
from gearshift.conformance.behaviour import behaviour
from gearshift.conformance.kit import Kit
from gearshift.conformance.matrix import BackendResults, Matrix, manifest, manifest_of
from gearshift.conformance.suite import SUITE
from gearshift.message import Semantics


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    """The memory backend as a queue."""
    return embedded("memory", Semantics.QUEUE, tmp_path)


def test_the_manifest_lists_every_behaviour() -> None:
    """The shipped list is the suite's: a behaviour that is dropped by accident is missed."""
    root = Path(__file__).parents[2]
    shipped = root / "src/gearshift/conformance/manifest.txt"
    assert shipped.read_text() == manifest_of(SUITE)
    assert manifest() == [behaviour.name for behaviour in SUITE]


def test_every_capability_is_proved_by_a_behaviour() -> None:
    """No field of the vocabulary is a claim that nothing checks."""
    proved = {behaviour.capability for behaviour in SUITE}
    claimed = {field.name for field in dataclasses.fields(Capabilities)}
    assert claimed <= proved


def test_every_behaviour_is_a_sentence() -> None:
    """Each has a docstring that says what it proves."""
    assert all(behaviour.sentence.endswith(".") for behaviour in SUITE)


def test_a_drain_goes_on_while_messages_come(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog of many rounds is nothing lost, though the whole of it outlasts the patience."""
    kit = Kit(harness)
    channel = kit.channel()
    kit.producer(channel).send_many(500)
    clock = itertools.count(step=harness.patience_s / 3)
    monkeypatch.setattr(kit_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    kit.verify(channel)
    kit.close()


@behaviour(Area.SETTLE, deliveries=5)
def sees_too_little(kit: Kit) -> None:
    """One delivery where five are needed."""
    channel = kit.channel()
    kit.producer(channel).send()
    kit.verify(channel)


@behaviour(Area.SETTLE)
def passes(kit: Kit) -> None:
    """Nothing wrong here."""
    channel = kit.channel()
    kit.producer(channel).send()
    kit.verify(channel)


@behaviour(Area.SETTLE)
def fails(kit: Kit) -> None:
    """Nothing right here."""
    kit.require(False, "lost", "as meant")


def test_a_run_that_saw_too_little_is_vacuous(harness: Harness) -> None:
    """It did not fail, and proved nothing: that is a failure."""
    result = execute(sees_too_little, harness)
    assert result.status is Status.VACUOUS
    assert result.status.is_failure


def test_a_known_failure_is_strict(harness: Harness) -> None:
    """It may fail with its reason; one that passes fails."""
    known = dataclasses.replace(harness, known_failures={"fails": "why", "passes": "why"})
    assert execute(fails, known).status is Status.KNOWN_FAILURE
    assert execute(fails, known).text == "why"
    assert execute(passes, known).status is Status.FAILED


def test_columns_that_say_the_same_are_one_in_the_tables(harness: Harness) -> None:
    """Each is in the list of all; a result that differs keeps a column apart."""
    said = execute(passes, harness)
    columns = {name: BackendResults(name, results={said.behaviour: said}) for name in "abc"}
    columns["c"].results[said.behaviour] = dataclasses.replace(said, status=Status.FAILED)
    tables = Matrix(columns).markdown([passes]).splitlines()
    assert "|  | a<br>b | c |" in tables
    assert sum(line.startswith(("| a |", "| b |", "| c |")) for line in tables) == len(columns)


def test_a_column_is_conformant_only_if_everything_was_run(harness: Harness) -> None:
    """Without faults it is functional at most; with something left out it is partial."""
    column = BackendResults("memory queue")
    for name in manifest():
        column.results[name] = dataclasses.replace(execute(passes, harness), behaviour=name)
    assert column.badge == "conformant"
    first = manifest()[0]
    column.results[first] = dataclasses.replace(column.results[first], status=Status.NOT_RUN)
    assert column.badge == "functional"
    del column.results[first]
    assert column.badge == "partial"
