"""Computes findings from a ledger, and from nothing else: ``--from`` draws the same again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import msgspec

from gearshift.compare.findings import (
    Agreement,
    Choice,
    Expectation,
    Finding,
    Number,
    Observation,
    Verdict,
)
from gearshift.compare.judges import JUDGES, Judge
from gearshift.compare.judges.judge import Seen
from gearshift.compare.ledger import SCENARIOS, Column, Ledger, RunRecord

__all__ = ["analyse", "headline"]

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
        seen = [_observation(judge, columns[run.column], run, ledger) for run in mine]
        observations = tuple(_against(seen[0], observation) for observation in seen)
        verdict = _verdict(observations)
        findings.append(
            Finding(
                scenario=scenario,
                title=judge.title,
                question=judge.question,
                verdict=verdict,
                summary=_summary(observations),
                handler=judge.handler,
                choices=_choices(judge, observations),
                observations=observations,
            )
        )
    return tuple(findings)


def headline(ledger: Ledger, findings: Sequence[Finding]) -> str:
    """The whole comparison in one sentence."""
    names = _listed([column.id for column in ledger.meta.columns])
    different = [finding.title.lower() for finding in findings if finding.verdict == "differs"]
    broken = sum(o.agrees == "no" for finding in findings for o in finding.observations)
    unclear = sum(o.outcome == UNKNOWN for finding in findings for o in finding.observations)
    judged = [finding for finding in findings if finding.verdict != "inconclusive"]
    of = f"{len(findings)} scenarios"
    if different:
        parts = [f"{names} differ in {len(different)} of {of} ({', '.join(different)})"]
    elif not judged:
        parts = [f"{names}: none of {of} has a result"]
    else:
        same = "behave the same" if len(ledger.meta.columns) > 1 else "behaves as shown"
        some = of if len(judged) == len(findings) else f"{len(judged)} of {of}"
        parts = [f"{names} {same} in {some}"]
    if broken:
        parts.append(f"{broken} observations break what was declared")
    if unclear:
        parts.append(f"{unclear} could not be judged")
    return "; ".join(parts) + "."


# ── One scenario on one column ───────────────────────────────────────────────────────────────────


def _observation(judge: Judge, column: Column, run: RunRecord, ledger: Ledger) -> Observation:
    expected = judge.expect(column, ledger.meta)
    if run.refused is not None:
        return _unjudged(column, UNSUPPORTED, "not possible here", run.refused, expected)
    seen = [_see(judge, run, number) for number in _repetitions(run)]
    outcomes = [one.outcome for one in seen if one.outcome is not None]
    if len(outcomes) < len(seen) or not outcomes:
        why = next((one.why for one in seen if one.outcome is None), "nothing was run")
        return _unjudged(column, UNKNOWN, "not clear", why, expected)
    outcome = judge.least(outcomes)
    numbers = _numbers(seen)
    words = {number.name: _written(number.median) for number in numbers}
    return Observation(
        column=column.id,
        outcome=outcome,
        shown=_filled(judge.shown[outcome], words),
        sentence=_filled(judge.sentence[outcome], words),
        verdict="unsupported" if outcome == UNSUPPORTED else "same",
        expected=expected,
        agrees=_agreement(judge, outcome, expected.outcome),
        numbers=numbers,
        charts=next(one.charts for one in seen if one.outcome == outcome),
    )


def _unjudged(
    column: Column, outcome: str, shown: str, why: str, expected: Expectation
) -> Observation:
    return Observation(
        column=column.id,
        outcome=outcome,
        shown=shown,
        sentence=why[:1].upper() + why[1:] + ("" if why.endswith(".") else "."),
        verdict="unsupported" if outcome == UNSUPPORTED else "inconclusive",
        expected=expected,
        agrees="unknown",
    )


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
    return "better" if judge.ranks.index(outcome) > judge.ranks.index(expected) else "no"


# ── Over the columns ─────────────────────────────────────────────────────────────────────────────


def _against(first: Observation, other: Observation) -> Observation:
    """``other`` with its verdict against the first column."""
    if other.verdict in ("unsupported", "inconclusive"):
        return other
    verdict: Verdict = "same" if other.outcome == first.outcome else "differs"
    return msgspec.structs.replace(other, verdict=verdict)


def _verdict(observations: Sequence[Observation]) -> Verdict:
    """A difference counts even if another column is unclear; likeness only if all are clear."""
    clear = {o.outcome for o in observations if o.verdict != "inconclusive"}
    if len(clear) > 1:
        return "differs"
    if any(o.verdict == "inconclusive" for o in observations):
        return "inconclusive"
    return "unsupported" if clear == {UNSUPPORTED} else "same"


def _summary(observations: Sequence[Observation]) -> str:
    """Columns that did the same, together: "a and b: in order per key; c: overtaken"."""
    ordered = sorted(observations, key=lambda o: o.shown)
    groups = {
        shown: [o.column for o in same] for shown, same in groupby(ordered, lambda o: o.shown)
    }
    first = {o.column: place for place, o in enumerate(observations)}
    listed = sorted(groups.items(), key=lambda item: first[item[1][0]])
    return "; ".join(f"{_listed(columns)}: {shown}" for shown, columns in listed) + "."


def _choices(judge: Judge, observations: Sequence[Observation]) -> tuple[Choice, ...]:
    """Advice where it makes a difference: some columns give what is needed and some do not."""
    clear = [o for o in observations if o.verdict != "inconclusive"]
    choices = []
    for need in judge.needs:
        good = [o for o in clear if o.outcome in need.outcomes]
        bad = [o for o in clear if o.outcome not in need.outcomes]
        if not good or not bad:
            continue
        evidence = "; ".join(f"{o.column}: {o.shown}" for o in (*good, *bad))
        choices.append(
            Choice(need=need.text, take=tuple(o.column for o in good), evidence=evidence)
        )
    return tuple(choices)


# ── Words ────────────────────────────────────────────────────────────────────────────────────────


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _filled(template: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        template = template.replace(f"{{{name}}}", value)
    return template


def _written(value: float | None) -> str:
    return "an unknown number" if value is None else f"{value:,.10g}"
