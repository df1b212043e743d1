"""Gearshift beside the raw clients: same run, same broker, in turns.

    PYTHONPATH=compose python tests/benchmarks/run.py [rabbit] [kafka] [sqlite] [-o json]

Bodies of 256 bytes, a key and two headers. Each round measures the raw client and then Gearshift
(the other way round every second time); the ratio is the median of the rounds' ratios. The CPU
time of this process per message, connecting included, says more on a busy machine. Exit code 1
only if a message was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType

import ours
import raw_kafka
import raw_rabbit
import raw_sqlite
from load import Measured
from rich.console import Console
from rich.table import Table

import gearshift

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "compose"))

KINDS = ("rabbit", "kafka", "sqlite")
MESSAGES = {"rabbit": 20_000, "kafka": 50_000, "sqlite": 20_000}
WARM_UP = 2000
TARGETS = {"rabbit publish": 0.6, "kafka publish": 0.4}


@dataclass
class Row:
    """One comparison: rates and losses of both sides, round by round."""

    name: str
    messages: int
    raw: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    raw_cpu_us: list[float] = field(default_factory=list)
    our_cpu_us: list[float] = field(default_factory=list)
    lost: int = 0

    def compare(self, raw: Callable[[], Measured], gears: Callable[[], Measured]) -> None:
        """Measure both sides once; which one is first alternates."""
        sides = [(raw, self.raw, self.raw_cpu_us), (gears, self.ours, self.our_cpu_us)]
        for measure, rates, cpu_us in sides if len(self.raw) % 2 == 0 else sides[::-1]:
            before = time.process_time()
            measured = measure()
            cpu_us.append((time.process_time() - before) / self.messages * 1e6)
            rates.append(measured.rate)
            self.lost += measured.lost
        print(f"  {self.name}: raw {self.raw[-1]:,.0f}/s, gearshift {self.ours[-1]:,.0f}/s",
              file=sys.stderr)  # fmt: skip

    @property
    def ratio(self) -> float:
        return statistics.median(b / a for a, b in zip(self.raw, self.ours, strict=True))

    @property
    def target(self) -> float | None:
        return TARGETS.get(self.name)

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.ratio >= self.target


@contextlib.contextmanager
def opened(profile: str) -> Iterator[gearshift.Bus]:
    """A bus with ``profile`` as the body of its only profile."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        path = Path(folder, "gearshift.toml")
        path.write_text(f'profile = "p"\n[profiles.p]\n{profile}\n')
        with gearshift.open(path) as bus:
            yield bus


def rabbit(rounds: int, total: int) -> list[Row]:
    """A quorum queue."""
    from native_brokers import RabbitMQ

    rows = [Row("rabbit publish", total), Row("rabbit consume", total)]
    with RabbitMQ() as broker, opened(f'backend = "rabbitmq"\nurl = "{broker.url}"') as bus:
        _rounds(rounds, rows, raw_rabbit, broker.url, bus)
    return rows


def kafka(rounds: int, total: int) -> list[Row]:
    """A topic with four partitions."""
    from native_brokers import Kafka

    rows = [Row("kafka publish", total), Row("kafka consume", total)]
    with Kafka(fast_start=False) as broker, opened(
        f'backend = "kafka"\nbootstrap_servers = ["{broker.url}"]'
    ) as bus:  # fmt: skip
        _rounds(rounds, rows, raw_kafka, broker.url, bus)
    return rows


def sqlite(rounds: int, total: int) -> list[Row]:
    """A file each, on the same disk."""
    row = Row("sqlite publish", total)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        opened(f'backend = "sqlite"\npath = "{folder}/ours.db"') as bus,
    ):
        for _ in range(rounds):
            name = _fresh()
            row.compare(
                partial(raw_sqlite.publish, Path(folder, "raw.db"), name, total),
                partial(ours.publish, bus, name, total),
            )
            bus.delete(name)
    return [row]


def _rounds(rounds: int, rows: list[Row], raw: ModuleType, url: str, bus: gearshift.Bus) -> None:
    """Publish with both and consume with both what they published, after a warm-up."""
    warm_up = [Row(f"({row.name}, warm-up)", WARM_UP) for row in rows]
    for current in [warm_up] + [rows] * rounds:
        name = _fresh()
        theirs = f"{name}-raw"
        for row, verb in zip(current, ("publish", "consume"), strict=True):
            row.compare(
                partial(getattr(raw, verb), url, theirs, row.messages),
                partial(getattr(ours, verb), bus, name, row.messages),
            )
        bus.delete(name)
        raw.delete(url, theirs)


def _fresh() -> str:
    return f"bench-{uuid.uuid4().hex[:8]}"


def show(rows: list[Row]) -> None:
    table = Table("benchmark", title="256-byte bodies, key and two headers: median messages/s")
    for name in ("messages", "raw", "gearshift", "ratio", "target", "client CPU, µs", "lost"):
        table.add_column(name, justify="right")
    for row in rows:
        met = {None: "", True: " met", False: " MISSED"}[row.met]
        table.add_row(
            row.name,
            f"{row.messages:,}",
            f"{statistics.median(row.raw):,.0f}",
            f"{statistics.median(row.ours):,.0f}",
            f"{row.ratio:.2f}",
            "" if row.target is None else f"{row.target}{met}",
            f"{statistics.median(row.raw_cpu_us):.0f} / {statistics.median(row.our_cpu_us):.0f}",
            str(row.lost),
        )
    console = Console()
    console.print(table, width=max(console.width, 100))


def main() -> int:
    """Run what was asked for, all by default."""
    parser = argparse.ArgumentParser(description="Gearshift beside the raw clients.")
    parser.add_argument("kinds", nargs="*", metavar="|".join(KINDS), help="default: all")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, help="instead of 20,000 (50,000 for Kafka)")
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"{unknown.pop()!r} is none of {', '.join(KINDS)}")
    benchmarks = {"rabbit": rabbit, "kafka": kafka, "sqlite": sqlite}
    rows: list[Row] = []
    for kind in given.kinds or KINDS:
        rows += benchmarks[kind](given.rounds, given.messages or MESSAGES[kind])
    if given.output == "json":
        extra = ("ratio", "target", "met")
        print(json.dumps([asdict(row) | {n: getattr(row, n) for n in extra} for row in rows]))
    else:
        show(rows)
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
