"""A small comparison made by hand, with every kind of chart: for looking at the report."""

from __future__ import annotations

import random

from gearshift.compare.findings import (
    Cell,
    Chart,
    Choice,
    Expectation,
    Finding,
    Number,
    Observation,
)
from gearshift.compare.ledger import (
    SCENARIOS,
    Column,
    Ledger,
    Meta,
    RunRecord,
    Setting,
    TrialRecord,
)

__all__ = ["findings", "ledger"]

_KINDS = dict(
    zip(
        SCENARIOS,
        ("order", "swimlane", "copies", "offsets", "timeline", "series", "scaling"),
        strict=True,
    )
)


def _rows(kind: str, chance: random.Random) -> list[tuple[Cell, ...]]:
    match kind:
        case "order":
            places = list(range(60))
            for _ in range(6):
                at = chance.randrange(50)
                places[at], places[at + 4] = places[at + 4], places[at]
            return [
                (sent, n, f"k{sent % 5}", f"worker {sent % 3}", sent != n)
                for n, sent in enumerate(places)
            ]
        case "swimlane":
            rows: list[tuple[Cell, ...]] = []
            for n in range(30):
                dead = n == 12
                state, end = ("killed", None) if dead else ("done", n * 20.0 + 45)
                rows.append((f"worker {n % 3}", n, f"k{n % 5}", n * 20.0, end, 1, state, False))
            rows.append(("worker 0", None, None, 260.0, None, None, "kill", False))
            rows.append(("worker 1", 12, "k2", 420.0, 465.0, 2, "done", True))
            return rows
        case "copies":
            return [
                ("billing", "before", 50, 50), ("billing", "after", 50, 50),
                ("audit", "before", 50, 0), ("audit", "after", 50, 50),
            ]  # fmt: skip
        case "offsets":
            return [
                (p * 300.0 + n * 10, n, part, p + 1)
                for p in range(2) for part in range(2) for n in range(25)
            ]  # fmt: skip
        case "timeline":
            rows = [(f"k{n % 4}", n, n * 15.0, n * 15.0 + 30, 1, "done") for n in range(24)]
            return rows + [("k1", 1, 100.0 * a, 100.0 * a + 20, a, "failed") for a in (1, 2, 3)]
        case "series":
            return [
                (name, unit, at * 50.0, float(abs(at * (30 - at)) * factor))
                for name, unit, factor in
                (("ready_messages", "messages", 1), ("rss_bytes", "bytes", 1e6))
                for at in range(31)
            ]  # fmt: skip
        case _:
            return [
                (w, min(w, 4) * 100.0 + r * 5, w * 100.0, min(w, 4), r)
                for w in (1, 2, 4, 8) for r in (1, 2)
            ]  # fmt: skip


def findings() -> list[Finding]:
    """One for every scenario, over two columns."""
    chance = random.Random(7)
    return [_finding(scenario, kind, chance) for scenario, kind in _KINDS.items()]


def _finding(scenario: str, kind: str, chance: random.Random) -> Finding:
    observations = tuple(
        Observation(
            column=column,
            outcome=outcome,
            shown=f"{outcome} by hand",
            sentence=f"In {column} it came out as {outcome}.",
            verdict="same" if column == "memory:queue" else "differs",
            expected=Expectation(
                outcome=outcome, sentence=f"It comes out as {outcome}.", because="order=key"
            ),
            agrees="no" if (scenario, column) == ("slow", "memory:stream") else "yes",
            numbers=(Number(name="lost", unit="messages", values=(0.0, 0.0)),
                     Number(name="delay", unit="ms", values=(12.5, 14.0))),
            charts=(
                Chart.of(
                    kind,  # type: ignore[arg-type]
                    f"{scenario} of {column}".capitalize(),
                    _rows(kind, chance),
                ),
            ),
        )
        for column, outcome in (("memory:queue", "one"), ("memory:stream", "other"))
    )  # fmt: skip
    return Finding(
        scenario=scenario,  # type: ignore[arg-type]
        title=scenario.replace("_", " ").capitalize(),
        question=f"What happens to {scenario}?",
        verdict="differs" if scenario != "scaling" else "same",
        summary="One does one thing, the other another.",
        handler="be idempotent on the message id.",
        choices=(
            Choice(need=f"{scenario}", take=("memory:queue",), evidence="It was seen to do it."),
        ),
        observations=observations,
    )


def ledger() -> Ledger:
    """A ledger to go with it."""
    columns = tuple(
        Column(
            id=f"memory:{semantics}",
            profile="memory",
            semantics=semantics,  # type: ignore[arg-type]
            backend="memory",
            server="memory </script><b>&",
            embedded=True,
            capabilities={"order": "key", "replay": semantics == "stream"},
            settings=(Setting("profiles.memory.max_messages", "1000000", "default"),),
        )
        for semantics in ("queue", "stream")
    )
    return Ledger(
        meta=Meta(
            started_at="2026-01-02T03:04:05Z",
            duration_s=12.3,
            seed=7,
            messages=60,
            repetitions=2,
            keys=5,
            prefetch=10,
            handler="",
            workload_sha256="ab" * 32,
            versions={"gearshift": "0.1.0", "python": "3.11"},
            machine={"system": "Linux", "cores": "2"},
            columns=columns,
            embedded_only=True,
        ),
        runs=tuple(
            RunRecord(
                scenario=scenario,
                column=column.id,
                trials=(TrialRecord(repetition=1, channel="c"),),
            )
            for scenario in SCENARIOS
            for column in columns
        ),
    )
