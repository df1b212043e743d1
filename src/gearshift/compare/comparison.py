"""Runs a comparison: every scenario on every column, one after the other, and what came of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import msgspec

from gearshift.compare import ledger as ledgers
from gearshift.compare import workload
from gearshift.compare.analysis import analyse
from gearshift.compare.columns import Target, described, targets_of
from gearshift.compare.decision import Decision, decide
from gearshift.compare.environment import machine, versions
from gearshift.compare.findings import Finding
from gearshift.compare.handlers import handler_of
from gearshift.compare.ledger import (
    SCENARIOS,
    Column,
    Ledger,
    Meta,
    RunRecord,
    Scenario,
    TrialRecord,
)
from gearshift.compare.needs import Ranked, rank
from gearshift.compare.scenarios import RUNS, Options, Run
from gearshift.errors import GearshiftError, NotSupported

__all__ = ["Comparison", "Progress", "run"]

#: Told of each step: what, how many are done, how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """A ledger and what it shows. In a notebook it shows itself."""

    ledger: Ledger

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """A finding per scenario."""
        return analyse(self.ledger)

    @cached_property
    def decision(self) -> Decision:
        """The whole in one sentence, and what to take for which need."""
        return decide(self.ledger.meta.columns, self.findings)

    @cached_property
    def ranked(self) -> tuple[Ranked, ...]:
        """The columns by the needs that the run was made for; nothing without needs."""
        needs = self.ledger.meta.needs
        return rank(self.findings, needs) if needs else ()

    def html(self) -> str:
        """The report, as one page that needs nothing else."""
        from gearshift.compare.report import render

        return render(self)

    def with_needs(self, needs: Sequence[str]) -> Comparison:
        """The same comparison, ranked by ``needs`` (names of ``needs.NEEDS``)."""
        meta = msgspec.structs.replace(self.ledger.meta, needs=tuple(needs))
        return Comparison(msgspec.structs.replace(self.ledger, meta=meta))

    def save(self, path: Path) -> None:
        """Write the ledger (``.json``) or the report (anything else)."""
        data = ledgers.encode(self.ledger) if path.suffix == ".json" else self.html().encode()
        path.write_bytes(data)

    @staticmethod
    def load(path: Path) -> Comparison:
        """Read what ``save`` wrote. Raises UsageError and OSError."""
        from gearshift.compare.report import extract

        if path.suffix == ".json":
            return Comparison(ledgers.read(path))
        return Comparison(extract(path.read_bytes()))

    def _repr_html_(self) -> str:
        escaped = self.html().replace("&", "&amp;").replace('"', "&quot;")
        return f'<iframe srcdoc="{escaped}" width="100%" height="900" title="report"></iframe>'


def run(
    columns: Sequence[str] = (),
    *,
    config: Path | None = None,
    scenarios: Sequence[Scenario] = SCENARIOS,
    options: Options | None = None,
    needs: Sequence[str] = (),
    progress: Progress = lambda what, done, of: None,
) -> Comparison:
    """Run ``scenarios`` on ``columns`` and return what happened. Blocks for seconds to minutes.

    A column is a profile of the settings file ``config`` (None: the nearest), or
    ``profile:semantics``; without semantics it is the backend's default. Without columns an
    embedded broker is used, as queue and as stream. ``needs`` (names of ``needs.NEEDS``) rank the
    columns. Channels are made for it and deleted again.
    Raises ConfigError, UsageError for a handler that is not there, and ConnectionFailed if a
    broker cannot be reached at all.
    """
    wanted = options or Options()
    if wanted.handler:
        handler_of(wanted.handler)  # a misspelt one is told before anything runs
    started_at, started = datetime.now(UTC), time.monotonic()
    orders = workload.make(wanted.seed, wanted.messages, max(wanted.keys, 1))
    with tempfile.TemporaryDirectory(prefix="gearshift-compare-") as name:
        folder = Path(name)
        targets = targets_of(columns, config, folder)
        columns_of = [described(target) for target in targets]
        steps = [
            (scenario, target, column)
            for scenario in scenarios
            for target, column in zip(targets, columns_of, strict=True)
        ]
        runs: list[RunRecord] = []
        for done, (scenario, target, column) in enumerate(steps):
            progress(f"{scenario} on {column.id}", done, len(steps))
            unfit = _unfit(runs, column) if wanted.handler else None
            if unfit is None:
                run = Run(target=target, folder=folder, options=wanted, orders=orders)
                runs.append(_run(scenario, column, run))
            else:
                not_run = TrialRecord(repetition=1, channel="", error=unfit)
                runs.append(RunRecord(scenario=scenario, column=column.id, trials=(not_run,)))
        progress("done", len(steps), len(steps))
    ledger = Ledger(
        meta=Meta(
            started_at=started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            duration_s=round(time.monotonic() - started, 1),
            seed=wanted.seed,
            messages=wanted.messages,
            repetitions=wanted.repetitions,
            keys=wanted.keys,
            prefetch=wanted.prefetch,
            handler=wanted.handler,
            workload_sha256=workload.sha256(orders),
            versions=versions(),
            machine=machine(),
            columns=tuple(columns_of),
            needs=tuple(needs),
            embedded_only=all(column.embedded for column in columns_of),
        ),
        runs=tuple(runs),
    )
    # As it is when it is read again: what is drawn from a file is then the same to the byte.
    return Comparison(ledgers.decode(ledgers.encode(ledger)))


def _run(scenario: Scenario, column: Column, run: Run) -> RunRecord:
    for repetition in range(1, run.options.repetitions + 1):
        run.repetition = repetition
        try:
            RUNS[scenario](run)
        except NotSupported as refusal:
            return RunRecord(scenario=scenario, column=column.id, refused=refusal.message)
        except GearshiftError as error:
            text = _masked(run.target, error)
            run.records.append(TrialRecord(repetition=repetition, channel="", error=text))
    return RunRecord(scenario=scenario, column=column.id, trials=tuple(run.records))


def _unfit(runs: Sequence[RunRecord], column: Column) -> str | None:
    """Why a user's handler runs no further scenario on ``column``: each would wait as long."""
    for run in runs:
        for trial in run.trials if run.column == column.id else ():
            if trial.error is not None:
                return f"not run, as {run.scenario} had no result: {trial.error}"
    return None


def _masked(target: Target, error: GearshiftError) -> str:
    with target.access({}).open() as bus:  # knows which texts are addresses
        return bus.config.masked(str(error))
