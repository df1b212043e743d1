"""Rounds in turns: every client once a round, in an order that moves, each in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import which

from benchmarks.brokers import Ground
from benchmarks.matrix import ALONE, GO_CLIENTS, INSTEAD, Work
from benchmarks.work import Load, Sample

HERE = Path(__file__).parent
_LIMIT_S = 300.0


@dataclass
class Row:
    """What was measured of one work: client → a sample a round."""

    work: Work
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def ratios(self, other: str, measure: str = "rate") -> list[float]:
        """Ours by theirs, round by round."""
        pairs = zip(self.samples[self.work.ours], self.samples[other], strict=True)
        return [getattr(ours, measure) / getattr(theirs, measure) for ours, theirs in pairs]


def measure(work: Work, ground: Ground, rounds: int, size: int = 256) -> Row:
    """All clients of ``work``, after a round that warms the broker up and is not counted."""
    clients = [c for c in (work.ours, *work.others) if c not in GO_CLIENTS or which("go")]
    row = Row(work, {client: [] for client in clients}, dict.fromkeys(clients, 0))
    for number in range(-1, rounds):
        for client in _turned(clients, number):
            total = work.total if number >= 0 else work.total // 10
            sample, lost = _round(work, ground, client, total, size)
            if number >= 0:
                row.samples[client].append(sample)
                row.lost[client] += lost
                _tell(f"{work.title}, round {number + 1}: {client} {_figures(sample)}")
    return row


def _turned(clients: Sequence[str], number: int) -> Sequence[str]:
    first = number % len(clients)
    return [*clients[first:], *clients[:first]]


def _round(work: Work, ground: Ground, client: str, total: int, size: int) -> tuple[Sample, int]:
    """One client once; ``lost`` is what plain clients miss on the far side."""
    place = ground.place(client)
    name = INSTEAD.get((client, work.name), work.name)
    if work.name == "receive":
        ground.fill(client, place, Load(total, size))
    threads = 1 if client in ALONE else work.threads
    argv = [*_program(client, name), place.url, place.name, str(total), str(size), str(threads)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=_LIMIT_S, check=True)
    sample = Sample(**json.loads(done.stdout))
    expected = total if name.startswith("send") else 0
    return sample, total - sample.done + abs(expected - ground.left(client, place))


def _program(client: str, work: str) -> Iterator[str]:
    if client in GO_CLIENTS:
        return iter([_built(GO_CLIENTS[client]), work])
    return iter([sys.executable, "-m", "benchmarks.client", client, work])


@cache
def _built(folder: str) -> str:
    program = HERE / "go" / folder / folder
    _tell(f"building {folder}")
    subprocess.run(["go", "build", "-o", program, "."], cwd=program.parent, check=True)
    return str(program)


def _figures(sample: Sample) -> str:
    if sample.rate:
        return f"{sample.rate:,.0f}/s, {sample.cpu_us:.0f} µs of CPU each"
    return f"{sample.p50_ms:.1f} ms, 99th percentile {sample.p99_ms:.1f} ms"


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
