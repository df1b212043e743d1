"""Tests of the order service, in milliseconds: no broker, no processes, no waiting.

Run them with ``pytest`` in this folder.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import service

from gearshift import testing

HERE = Path(__file__).parent


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the service writes, a new one for each test."""
    file = tmp_path / "journal.txt"
    monkeypatch.setattr(service, "journal", service.Journal(file))
    return file


@pytest.fixture
def harness(journal: Path) -> Iterator[testing.Harness]:
    """The service's channels, in memory."""
    with testing.open(HERE / "gearshift.toml") as opened:
        yield opened


def entries(journal: Path) -> list[tuple[str, ...]]:
    """Group, order, attempt, and whether it is known to have come before."""
    lines = [line.split() for line in journal.read_text().splitlines()]
    return sorted((group, order, attempt, seen) for group, order, _, attempt, seen, _ in lines)


def test_each_order_is_charged_and_written_down(harness: testing.Harness, journal: Path) -> None:
    harness.send("orders", {"order_id": 1, "customer": "ada", "cents": 250})
    harness.run(service.app)
    assert entries(journal) == [("audit", "1", "1", "first"), ("billing", "1", "1", "first")]


def test_an_order_for_nothing_is_given_up_and_still_written_down(
    harness: testing.Harness, journal: Path
) -> None:
    harness.send("orders", {"order_id": 13, "customer": "ada", "cents": 0})
    harness.run(service.app, raise_on_error=False)
    assert entries(journal) == [("audit", "13", "1", "first")]
    assert [retry.delay_s for retry in harness.retried("orders", "billing")] == [0.2, 0.4]
    (letter,) = harness.dead_letters("orders")
    assert letter.reason == ("gave up after 3 attempts: ValueError: order 13 has nothing to charge")


def test_what_comes_again_is_marked_so(harness: testing.Harness, journal: Path) -> None:
    harness.lose_acks("orders", "billing")
    harness.send("orders", {"order_id": 1, "customer": "ada", "cents": 250})
    harness.run(service.app)
    assert ("billing", "1", "1", "again") in entries(journal)
