"""The performance page of the documentation, from a run's JSON: the same run gives the same page.

    python -m benchmarks.page [FILE [FOLDER]]

FILE is docs/performance.json unless another is given, FOLDER is docs. Writes performance.md and its
charts; what people have written stands in performance.md.j2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from benchmarks import charts
from benchmarks.matrix import CLIENTS

DOCS = Path(__file__).parents[2] / "docs"
_KINDS = {"raw": "the broker's own client", "gearshift": "Gearshift in another way"}
#: A rate under this part of the first one is said to fall.
_FALLS = 0.8

Row = dict[str, Any]


def main() -> None:
    """Write the page."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "performance.json"
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else DOCS
    for name, text in page(json.loads(file.read_text())).items():
        (folder / name).write_text(text)
        print(folder / name)


def page(run: Row) -> dict[str, str]:
    """File name → text."""
    beside = [line for row in run["rows"] for line in _beside(row)]
    grown = [line for series in run["growth"] for line in _grown(series)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("performance.md.j2").render(
        run=run,
        rounds=min((len(one) for row in run["rows"] for one in row["samples"].values()), default=0),
        kinds={kind: list(rows) for kind, rows in groupby(beside, key=lambda line: line["kind"])},
        grown=grown,
        received={
            (row["kind"], row["series"], row["at"]): row["rate"]
            for row in grown
            if row["way"] == "received"
        },
        failed=[
            point | {"kind": series["kind"], "series": series["series"]}
            for series in run["growth"]
            for point in series["points"]
            if "failed" in point
        ],
        falls=list(_falls(grown)),
        costs=_Costs(run["rows"]),
    )
    return {
        "performance.md": text,
        "performance-ratios.svg": charts.ratios(beside),
        "performance-growth.svg": charts.growth(grown),
    }


def _beside(row: Row) -> Iterator[Row]:
    """A line for each measure and each other client: how many times as quick Gearshift is."""
    ours = row["samples"][row["ours"]]
    for client, theirs in row["samples"].items():
        if client == row["ours"]:
            continue
        for measure, what in _measures(row):
            pairs = [
                (one[measure], other[measure]) for one, other in zip(ours, theirs, strict=True)
            ]
            # Of times, the shorter is the quicker.
            found = sorted(b / a if measure.endswith("_ms") else a / b for a, b in pairs)
            yield {
                "kind": row["kind"],
                "what": what,
                "client": client,
                "label": f"{row['kind']}, {what}: {client}",
                "low": found[0],
                "middle": median(found),
                "high": found[-1],
                "sort": _KINDS.get(CLIENTS.get(client, "").rstrip("_"), "another library"),
                "ours": median(a for a, _ in pairs),
                "theirs": median(b for _, b in pairs),
                "unit": " ms" if measure.endswith("_ms") else "/s",
                "lost": row["lost"][client] + row["lost"][row["ours"]],
            }


def _measures(row: Row) -> list[tuple[str, str]]:
    if row["work"] == "end_to_end":
        return [("p50_ms", "end to end, median"), ("p99_ms", "end to end, 99 %")]
    threads = f", {row['threads']} threads" if row["threads"] > 1 else ""
    names = {"gearshift": "", "gearshift-queue": " to a queue", "gearshift.aio": " by coroutines"}
    return [("rate", row["work"] + threads + names[row["ours"]])]


def _grown(series: Row) -> Iterator[Row]:
    for point in series["points"]:
        for way in ("sent", "received"):
            if "failed" in point:
                continue
            bulk = point["at"] / 1e6 if series["series"] == "size" else 1.0
            yield {
                "kind": series["kind"],
                "series": series["series"],
                "way": way,
                "at": point["at"],
                "rate": median(point[way]) * bulk,
                "memory_mb": point["memory_mb"],
            }


def _falls(grown: list[Row]) -> Iterator[tuple[Row, Row]]:
    """First and last of each line of the chart whose end is clearly lower."""
    lines: dict[tuple[str, str, str], list[Row]] = {}
    for row in grown:
        lines.setdefault((row["series"], row["kind"], row["way"]), []).append(row)
    for line in lines.values():
        if line[-1]["rate"] < _FALLS * line[0]["rate"]:
            yield line[0], line[-1]


class _Costs:
    """Figures for the sentences: the middle of Gearshift's rates."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def rate(self, kind: str, work: str, threads: int = 1, ours: str = "gearshift") -> float | None:
        """Messages a second; None if this run has not measured it."""
        wanted = (kind, work, threads, ours)
        for row in self._rows:
            if (row["kind"], row["work"], row["threads"], row["ours"]) == wanted:
                return median(sample["rate"] for sample in row["samples"][ours])
        return None


if __name__ == "__main__":
    main()
