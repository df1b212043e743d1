"""Growth runs: how rates and memory go with backlog, channels, consumers and sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.brokers import fresh, started

KINDS = ("memory", "sqlite", "rabbitmq", "kafka")
POINTS = {
    "backlog": (1_000, 100_000, 1_000_000),
    "channels": (1, 10, 100, 1_000),
    "consumers": (1, 8, 64),
    "size": (64, 1_024, 16_384, 262_144, 1_048_576),
}
#: Where that is less than the last point: what two cores bear, and what the broker takes.
MOST = {
    ("rabbitmq", "channels"): 100,  # two connections for each
    ("kafka", "channels"): 100,  # two clients of some five threads for each
    ("kafka", "size"): 999_000,  # of 1,000,000, with key and headers
}
_LIMIT_S = 150.0


def measure(rounds: int, most: int | None = None) -> Iterator[dict[str, Any]]:
    """A series after the other: ``kind``, ``series``, ``points``; a point that ``failed`` says why.

    With ``most`` no backlog is longer, for a quick look.
    """
    for kind in KINDS:
        with started(kind) as ground:
            for series, wanted in POINTS.items():
                limit = MOST.get((kind, series), max(wanted))
                if series == "backlog":
                    limit = min(limit, most or limit)
                points = [
                    _point(series, at, rounds, ground.url, kind)
                    for at in dict.fromkeys(min(limit, each) for each in wanted)
                ]
                yield {"kind": kind, "series": series, "points": points}


def _point(series: str, at: int, rounds: int, url: str, kind: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "benchmarks.growing", series, str(at), str(rounds)]
    print(f"  {kind} {series} {at:,}", end=": ", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            [*argv, url, fresh()], stdout=subprocess.PIPE, text=True, timeout=_LIMIT_S, check=True
        )
    except subprocess.SubprocessError as error:
        why = f"not done within {_LIMIT_S:g} s" if hasattr(error, "timeout") else "an error"
        print(why, file=sys.stderr)
        return {"at": at, "failed": why}
    point = json.loads(done.stdout)
    print(f"{max(point['sent']):,.0f}/s, {max(point['received']):,.0f}/s", file=sys.stderr)
    return {"at": at, **point}
