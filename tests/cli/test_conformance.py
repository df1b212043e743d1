"""``conformance`` runs the kit on a profile, tells every result, and fails if one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Run, records

from gearshift.conformance import Area, suite
from gearshift.conformance.behaviour import behaviour
from gearshift.conformance.kit import Kit


@behaviour(Area.PUBLISH, deliveries=0)
def wrong(kit: Kit) -> None:
    """It is not so."""
    kit.require(False, "content", "nothing is as it was")


def test_every_semantics_that_the_backend_offers_is_a_column(run: Run) -> None:
    done = run("conformance", "memory", "--behaviour", "what_was_acked_stays_gone", "-o", "json")
    assert done.exit_code == 0
    assert {(one["column"], one["status"]) for one in json.loads(done.stdout)} == {
        ("memory queue", "verified"),
        ("memory stream", "verified"),
    }
    assert "memory queue on" in done.stderr
    assert "partial" in done.stderr


def test_the_report_is_written(run: Run, project: Path) -> None:
    """It is what ``python -m gearshift.conformance`` draws."""
    name = "what_was_acked_stays_gone"
    done = run("conformance", "dev", "--semantics", "queue", "--behaviour", name, "--report", "r")
    assert done.exit_code == 0
    (column,) = json.loads((project / "r").read_text())["columns"]
    assert column["results"].keys() == {name}
    assert column["capabilities"]["lease"] == "held"


def test_a_failure_is_told_and_is_exit_code_5(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SUITE", (wrong,))
    done = run("conformance", "memory", "--semantics", "queue", "--copies", "3", "-o", "jsonl")
    assert done.exit_code == 5
    (told,) = records(done.stdout)
    assert (told["status"], told["checkers"]) == ("failed", ["content"])
    assert "nothing is as it was" in told["text"]


def test_one_failure_of_many_copies_is_a_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others are well, before and after it."""
    runs = iter(range(100))

    @behaviour(Area.PUBLISH, deliveries=0)
    def sometimes(kit: Kit) -> None:
        kit.require(next(runs) != 2, "content", "the third is wrong")

    monkeypatch.setattr(suite, "SUITE", (sometimes,))
    done = run("conformance", "memory", "--semantics", "queue", "--copies", "5", "-o", "jsonl")
    assert done.exit_code == 5
    assert [told["status"] for told in records(done.stdout)] == ["failed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--behaviour", "no_such_thing"), "no such behaviour"), (("--copies", "0"), "x>=1")],
)
def test_a_wrong_argument_is_refused(run: Run, arguments: tuple[str, ...], words: str) -> None:
    done = run("conformance", "memory", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
