"""Handlers whose faults are known, and handlers without: a proof tells them apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from prove.subject import Subject, collected
from prove.table import table

from gearshift.misfortunes import RULES
from gearshift.testing.prove import Verdict

#: Cases for each handler.
CASES = 150

FAULTY = [one for one in collected() if one.rule is not None]
RIGHT = [one for one in collected() if one.rule is None]


@pytest.mark.parametrize("subject", FAULTY, ids=lambda one: one.build.__name__)
def test_a_fault_is_found_with_its_reason(subject: Subject) -> None:
    """A faulty handler is not safe, and the story names the misfortune that it does not stand."""
    found = subject.proof(CASES)
    assert found.verdict is Verdict.NOT_SAFE, found
    assert subject.rule in [story.rule for story in found.stories], found


@pytest.mark.parametrize("subject", RIGHT, ids=lambda one: one.build.__name__)
def test_a_right_handler_is_not_suspected(subject: Subject) -> None:
    """A handler that stands everything is called safe."""
    found = subject.proof(CASES)
    assert found.verdict is Verdict.SAFE, found


def test_every_misfortune_has_its_fault() -> None:
    """For each rule there is a handler whose test fails without it."""
    assert {rule.name for rule in RULES} == {one.rule for one in FAULTY}


def test_the_same_seed_tells_the_same_story() -> None:
    """A proof is repeatable."""
    subject = next(one for one in FAULTY if one.rule == "crash inside")
    assert str(subject.proof(CASES)) == str(subject.proof(CASES))


def test_the_table_in_the_docs_is_of_this_corpus() -> None:
    """What the docs show is what was proved."""
    page = Path(__file__).parents[2] / "docs" / "guides" / "prove-corpus.md"
    assert page.read_text(encoding="utf-8") == table()
