"""Gearshift beside the raw clients and its peers: same run, same broker, in turns.

    make bench, or python -m benchmarks [WORK ...] [--rounds 5] [--growth] [--json FILE]

WORK is part of a title, such as "rabbitmq" or "kafka send". Bodies of 256 bytes, a key and two
headers. Every client runs once a round, in a process of its own and in an order that moves; what it
says to have done is counted on the far side by a plain client. A ratio is the median of the rounds'
ratios, with the least and the greatest beside it. The CPU time of the client's process says more
where the machine is busy. Exit code 1 only if a message was lost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import growth, report
from benchmarks.brokers import started
from benchmarks.matrix import WORKS
from benchmarks.rounds import Row, measure


def main() -> int:
    """Run what was asked for, all by default."""
    parser = argparse.ArgumentParser(description="Gearshift beside the raw clients and its peers.")
    parser.add_argument("works", nargs="*", metavar="WORK", help="part of a title; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of messages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples")
    parser.add_argument("--growth", action="store_true", help="also measure how rates grow or fall")
    parser.add_argument("--most", type=int, metavar="N", help="longest backlog of the growth runs")
    given = parser.parse_args()
    works = [
        work.scaled(given.scale)
        for work in WORKS
        if not given.works or any(part in work.title for part in given.works)
    ]
    if not works:
        parser.error("there is no such work; there are " + ", ".join(w.title for w in WORKS))
    rows: list[Row] = []
    grown: list[dict[str, Any]] = []
    for kind, of_kind in groupby(works, key=lambda work: work.kind):
        with started(kind) as ground:
            rows += [measure(work, ground, given.rounds) for work in of_kind]
        _keep(given, rows, grown)
    for series in growth.measure(given.rounds, given.most) if given.growth else ():
        grown.append(series)
        _keep(given, rows, grown)
    report.show(rows)
    return 1 if any(any(row.lost.values()) for row in rows) else 0


def _keep(given: argparse.Namespace, rows: Sequence[Row], grown: Sequence[dict[str, Any]]) -> None:
    """Also what there is so far: a run that breaks off has something to show."""
    if given.json:
        given.json.write_text(report.as_json(rows, grown, given.scale))


if __name__ == "__main__":
    sys.exit(main())
