"""The performance page is what its run gives, and speaks of settings that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.page import page

from gearshift.config.description import described

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    """The committed one."""
    loaded: dict[str, Any] = json.loads((DOCS / "performance.json").read_text())
    return loaded


def test_the_page_is_that_of_its_run(run: dict[str, Any]) -> None:
    """Page and charts: ``python -m benchmarks.page`` writes them."""
    for name, text in page(run).items():
        assert _placed(text) == _placed((DOCS / name).read_text()), name


def _placed(text: str) -> str:
    """Without what depends on the fonts of a machine: how wide labels are."""
    return re.sub(r'(viewBox|transform|d)="[^"]*"', "", text)


def test_a_rate_that_falls_is_said(run: dict[str, Any]) -> None:
    """With how far; one that grows is not."""
    points = [
        {"at": 1, "sent": [1000.0], "received": [100.0], "memory_mb": 50},
        {"at": 10, "sent": [200.0], "received": [200.0], "memory_mb": 50},
    ]
    series = {"kind": "memory", "series": "channels", "points": points}
    text = page(run | {"growth": [series]})["performance.md"]
    assert "**memory, channels: sent falls** to 0.20 from 1 to 10 (1,000 to 200/s)" in text
    assert "received falls" not in text


def test_a_point_that_failed_is_said(run: dict[str, Any]) -> None:
    """And is not drawn."""
    points = [{"at": 7, "failed": "not done within 240 s"}]
    series = {"kind": "kafka", "series": "consumers", "points": points}
    text = page(run | {"growth": [series]})["performance.md"]
    assert "| kafka, consumers | 7 | not done within 240 s |" in text


def test_what_was_lost_is_counted(run: dict[str, Any]) -> None:
    """On either side of a ratio."""
    sample = {"done": 1, "rate": 10.0, "p50_ms": 0.0, "p99_ms": 0.0, "cpu_us": 1.0}
    row = run["rows"][0] | {
        "kind": "kafka", "work": "receive", "threads": 1, "ours": "gearshift",
        "samples": {"gearshift": [sample, sample], "pika": [sample | {"rate": 5.0}] * 2},
        "lost": {"gearshift": 1, "pika": 2},
    }  # fmt: skip
    text = page(run | {"rows": [row]})["performance.md"]
    assert "| receive | pika | 2.00 | 2.00 to 2.00 | 10/s | 5/s | 3 |" in text


def test_every_setting_exists() -> None:
    """Of channels, or of the backend that is named."""
    text = (DOCS / "performance.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE)
    assert len(rows) > 5
    for name, of in rows:
        tables = described(None if of == "channel" else of)
        assert name in [setting.name for _, settings in tables for setting in settings], name
