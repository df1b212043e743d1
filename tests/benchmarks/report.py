"""A run as JSON, and as tables for a terminal."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.matrix import END_TO_END_AT_MOST
from benchmarks.rounds import Row

_DISTRIBUTIONS = (
    "gearshift", "pika", "confluent-kafka", "redis", "aio-pika", "kombu", "aiokafka", "faststream",
    "litequeue", "huey", "persist-queue",
)  # fmt: skip


def as_json(rows: Sequence[Row], grown: Sequence[dict[str, Any]], scale: float) -> str:
    """All samples, with versions and the machine."""
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": platform.platform(terse=True),
            "load": round(os.getloadavg()[2], 1),  # of the last quarter of an hour
        },
        "versions": dict(_versions()),
        "scale": scale,
        "rows": [
            {
                "kind": row.work.kind,
                "work": row.work.name,
                "threads": row.work.threads,
                "ours": row.work.ours,
                "messages": row.work.total,
                "at_least": row.work.others,
                "lost": row.lost,
                "samples": {name: [asdict(s) for s in all_] for name, all_ in row.samples.items()},
            }
            for row in rows
        ],
        "growth": list(grown),
    }
    return json.dumps(document, indent=1) + "\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> Iterator[tuple[str, str]]:
    for name in _DISTRIBUTIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def show(rows: Sequence[Row]) -> None:
    """Print tables to a terminal."""
    console = Console(width=130)
    for lines, columns in ((_rates(rows), _RATES), (_times(rows), _TIMES)):
        table = Table(*columns[:2], box=SIMPLE)
        for name in columns[2:]:
            table.add_column(name, justify="right")
        for line in lines:
            table.add_row(*line)
        if table.row_count:
            console.print(table)


_RATES = ["work", "client", "messages/s", "Gearshift by it", "rounds", "aim", "CPU, µs", "lost"]
_TIMES = ["end to end", "client", "median, ms", "99 %, ms", "Gearshift by it", "aim", "lost"]


def _rates(rows: Sequence[Row]) -> Iterator[list[str]]:
    for row in rows:
        if row.work.name == "end_to_end":
            continue
        for client, samples in row.samples.items():
            is_ours = client == row.work.ours
            ratios = [] if is_ours else row.ratios(client)
            yield [
                row.work.title if is_ours else "",
                client,
                f"{_median(samples, 'rate'):,.0f}",
                "" if is_ours else f"{statistics.median(ratios):.2f}",
                "" if is_ours else f"{min(ratios):.2f} to {max(ratios):.2f}",
                "" if is_ours else _aim(row.work.others[client], statistics.median(ratios)),
                f"{_median(samples, 'cpu_us'):.0f}",
                str(row.lost[client]),
            ]


def _times(rows: Sequence[Row]) -> Iterator[list[str]]:
    for row in rows:
        if row.work.name != "end_to_end":
            continue
        for client, samples in row.samples.items():
            ratio = aim = ""
            if client != row.work.ours:
                ratios = [statistics.median(row.ratios(client, m)) for m in ("p50_ms", "p99_ms")]
                ratio = " / ".join(f"{each:.2f}" for each in ratios)
                aim = " / ".join(f"at most {each}" for each in END_TO_END_AT_MOST)
            yield [
                row.work.kind if client == row.work.ours else "",
                client,
                f"{_median(samples, 'p50_ms'):.2f}",
                f"{_median(samples, 'p99_ms'):.2f}",
                ratio,
                aim,
                str(row.lost[client]),
            ]


def _median(samples: Sequence[Any], measure: str) -> float:
    return statistics.median(getattr(sample, measure) for sample in samples)


def _aim(at_least: float | None, ratio: float) -> str:
    if at_least is None:
        return ""
    return f"{at_least:g}, {'met' if ratio >= at_least else 'missed'}"
