"""What the soak of clusters counts, on histories made by hand."""

from __future__ import annotations

import json
from pathlib import Path

from soak.cluster_report import Row, kept
from soak.clusters import confirmed_in_silence, unheard_s

from gearshift.conformance.history import Event, History, Kind, Phase

S = 10**9


def sent(id: str, begun_s: int, confirmed_s: int) -> list[Event]:
    """The events of a message with a receipt."""
    return [
        Event(kind=Kind.PUBLISH, phase=phase, channel="c", id=id, at_ns=at_s * S)
        for phase, at_s in ((Phase.INVOKE, begun_s), (Phase.OK, confirmed_s))
    ]


HISTORY = History([*sent("a", 0, 1), *sent("b", 1, 21), *sent("c", 22, 24)])


def test_the_longest_time_without_a_receipt_leaves_outages_out() -> None:
    """Also those that had begun before the last receipt or go on after the next."""
    assert unheard_s(HISTORY, "c", []) == 20.0
    assert unheard_s(HISTORY, "c", [(3 * S, 20 * S)]) == 3.0
    assert unheard_s(HISTORY, "c", [(0 * S, 22 * S)]) == 2.0


def test_what_was_sent_before_a_silence_or_confirmed_after_it_does_not_break_it() -> None:
    """What was both sent and confirmed within does."""
    assert confirmed_in_silence(HISTORY, "c", [(2 * S, 23 * S)]) == 0
    assert confirmed_in_silence(HISTORY, "c", [(0 * S, 23 * S)]) == 1


def test_a_report_keeps_the_rows_of_earlier_runs_that_were_not_made_again(tmp_path: Path) -> None:
    """Those of the same cluster, fault and semantics are replaced."""
    report = tmp_path / "clusters.json"
    day = "2026-01-01"
    rows = [Row("c", semantics, "frozen", day, 60, lost=1) for semantics in ("queue", "stream")]
    kept(report, rows)
    kept(report, [Row("c", "queue", "frozen", "2026-01-02", 300, notes=["it broke"])])
    found = {row["semantics"]: row["lost"] for row in json.loads(report.read_text())}
    assert found == {"queue": 0, "stream": 1}
    assert "- c queue, frozen: it broke" in report.with_suffix(".md").read_text()
