"""Stories played on a broker, for each misfortune that can be: here on SQLite, which needs none."""

from __future__ import annotations

from pathlib import Path

import pytest
from prove.faulty import (
    buffered_in_memory,
    goes_by_redelivered_where_it_is_exact,
    order_among_keys,
    partial_batch,
    remembers_the_last_id_only,
)
from prove.subject import collected

CASES = [
    (remembers_the_last_id_only, "ack unseen"),
    (buffered_in_memory, "death after"),
    (partial_batch, "death inside"),
    (goes_by_redelivered_where_it_is_exact, "stored twice"),
    (order_among_keys, "overtaken"),
]


@pytest.mark.parametrize(("build", "rule"), CASES, ids=[rule for _, rule in CASES])
def test_a_story_is_seen_again(build: object, rule: str, tmp_path: Path) -> None:
    """What breaks a handler in a proof breaks it on a broker."""
    subject = next(one for one in collected() if one.build is build)
    played = {one.rule: str(one.on_broker) for one in subject.proof(150, tmp_path).stories}
    assert played[rule].startswith("seen on SQLite"), played
