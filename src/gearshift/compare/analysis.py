"""Computes findings from a ledger, and from nothing else: ``--from`` draws the same again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gearshift.compare.contrast import contrast
from gearshift.compare.findings import (
    Agreement,
    Expectation,
    Finding,
    FindingVerdict,
    Mark,
    Number,
    Observation,
)
from gearshift.compare.judges import JUDGES, Judge
from gearshift.compare.judges.judge import Seen
from gearshift.compare.ledger import SCENARIOS, Column, Ledger, RunRecord
from gearshift.compare.words import filled, sentence

__all__ = ["UNKNOWN", "UNSUPPORTED", "analyse"]

UNKNOWN, UNSUPPORTED = "unknown", "unsupported"


def analyse(ledger: Ledger) -> tuple[Finding, ...]:
    """A finding per scenario that was run, in the usual order."""
    columns = {column.id: column for column in ledger.meta.columns}
    runs = {(run.scenario, run.column): run for run in ledger.runs}
    findings = []
    for scenario in SCENARIOS:
        mine = [runs[scenario, name] for name in columns if (scenario, name) in runs]
        if not mine:
            continue
        judge = JUDGES[scenario]
        observations = tuple(_observation(judge, columns[run.column], run, ledger) for run in mine)
        findings.append(
            Finding(
                scenario=scenario,
                title=judge.title,
                subject=judge.subject,
                question=judge.question,
                verdict=_verdict(observations),
                summary=sentence(contrast(scenario, observations, ledger.meta.columns)),
                handler=judge.handler,
                observations=observations,
            )
        )
    return tuple(findings)


# ── One scenario on one column ───────────────────────────────────────────────────────────────────


def _observation(judge: Judge, column: Column, run: RunRecord, ledger: Ledger) -> Observation:
    expected = judge.expect(column, ledger.meta)
    if run.refused is not None:
        return _unjudged(column, "cannot", run.refused, expected)
    seen = [_see(judge, run, number) for number in _repetitions(run)]
    outcomes = [one.outcome for one in seen if one.outcome is not None]
    if len(outcomes) < len(seen) or not outcomes:
        why = next((one.why for one in seen if one.outcome is None), "nothing was run")
        return _unjudged(column, "unclear", why, expected)
    outcome = min(outcomes, key=judge.rank)
    words = judge.outcomes[outcome]
    numbers = _numbers(seen)
    return Observation(
        column=column.id,
        outcome=outcome,
        mark=words.mark,
        shown=filled(words.shown, numbers),
        sentence=filled(words.sentence, numbers),
        expected=expected,
        agrees=_agreement(judge, outcome, expected.outcome),
        caution=_caution(judge, column, words.mark),
        numbers=numbers,
        charts=next(one.charts for one in seen if one.outcome == outcome),
    )


def _unjudged(column: Column, mark: Mark, why: str, expected: Expectation) -> Observation:
    return Observation(
        column=column.id,
        outcome=UNSUPPORTED if mark == "cannot" else UNKNOWN,
        mark=mark,
        shown="not possible here" if mark == "cannot" else "not clear",
        sentence=sentence(why),
        expected=expected,
        agrees="unknown",
    )


def _caution(judge: Judge, column: Column, mark: Mark) -> str:
    return judge.elsewhere.get(column.semantics, "") if column.embedded and mark == "keeps" else ""


def _repetitions(run: RunRecord) -> list[int]:
    return sorted({trial.repetition for trial in run.trials})


def _see(judge: Judge, run: RunRecord, repetition: int) -> Seen:
    trials = [trial for trial in run.trials if trial.repetition == repetition]
    error = next((trial.error for trial in trials if trial.error), None)
    return Seen(outcome=None, why=error) if error else judge.see(trials)


def _numbers(seen: Iterable[Seen]) -> tuple[Number, ...]:
    """Each number with its values of all repetitions, in the order of first mention."""
    values: dict[tuple[str, str], list[float]] = {}
    for one in seen:
        for name, unit, value in one.numbers:
            kept = values.setdefault((name, unit), [])
            if value is not None:
                kept.append(value)
    return tuple(
        Number(name=name, unit=unit, values=tuple(kept)) for (name, unit), kept in values.items()
    )


def _agreement(judge: Judge, outcome: str, expected: str) -> Agreement:
    if outcome == expected:
        return "yes"
    return "better" if judge.rank(outcome) > judge.rank(expected) else "no"


# ── Over the columns ─────────────────────────────────────────────────────────────────────────────


def _verdict(observations: Sequence[Observation]) -> FindingVerdict:
    """A difference counts even if another column is unclear; likeness only if all are clear."""
    clear = {o.outcome for o in observations if o.mark != "unclear"}
    if len(clear) > 1:
        return "differs"
    if any(o.mark == "unclear" for o in observations):
        return "inconclusive"
    return "unsupported" if clear == {UNSUPPORTED} else "same"
