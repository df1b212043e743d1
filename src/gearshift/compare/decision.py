"""Finds the decision in the findings: what matters, what to take for which need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gearshift.compare.contrast import contrast, kinds, named
from gearshift.compare.findings import Finding, Observation
from gearshift.compare.ledger import Column, Scenario
from gearshift.compare.needs import DECIDING, NEEDS, Known
from gearshift.compare.words import listed, measured, sentence

__all__ = ["Advice", "Decision", "Reason", "decide"]

#: From this factor between the slowest and the quickest recovery on, it is worth a sentence.
_MUCH_SLOWER = 5


@dataclass(frozen=True, slots=True)
class Reason:
    """A need that some columns meet and others do not, with what was seen of both."""

    need: str
    scenario: Scenario
    met: str
    unmet: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Take one of ``columns`` if you have one of these needs. ``take`` is what they are called."""

    take: str
    columns: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole in a sentence, others that add to it, and advice, the most often decisive first."""

    sentence: str
    more: tuple[str, ...]
    advice: tuple[Advice, ...]


def decide(columns: Sequence[Column], findings: Sequence[Finding]) -> Decision:
    """The decision that ``findings`` lead to. Pure."""
    by_scenario = {finding.scenario: finding for finding in findings}
    ordered = [by_scenario[name] for name in DECIDING if name in by_scenario]
    different = [found for found in ordered if found.verdict == "differs"]
    clauses = [contrast(found.scenario, found.observations, columns) for found in different]
    opening = _opening(columns, findings, different)
    return Decision(
        sentence=sentence(f"{opening}: {clauses[0]}" if clauses else opening),
        more=tuple(map(sentence, [*clauses[1:3], *_recovery(by_scenario), *_doubts(findings)])),
        advice=_advice(columns, by_scenario),
    )


def _opening(
    columns: Sequence[Column], findings: Sequence[Finding], different: Sequence[Finding]
) -> str:
    names = listed([column.id for column in columns])
    if not different:
        return _alike(names, len(columns), findings)
    by_kind = sum(_decides(found, columns, "semantics") for found in different)
    by_broker = sum(_decides(found, columns, "profile") for found in different)
    kinds_of = len({column.semantics for column in columns})
    brokers = len({column.profile for column in columns})
    if kinds_of == brokers == len(columns):  # each column is another of both
        return f"{names} are two different things"
    if by_kind == len(different):
        return "Queue or stream is what matters here" + ", not the broker" * (brokers > 1)
    if by_broker == len(different):
        return "The broker is what matters here" + ", not queue or stream" * (kinds_of > 1)
    if not by_kind and not by_broker:
        return "Each column is a case of its own"
    what = "Queue or stream" if by_kind >= by_broker else "The broker"
    most = max(by_kind, by_broker)
    return f"{what} matters most here, in {most} of {len(different)} differences"


def _alike(names: str, count: int, findings: Sequence[Finding]) -> str:
    judged = [found for found in findings if found.verdict != "inconclusive"]
    of = measured(len(findings), "scenarios")
    if not judged:
        return f"Nothing to decide by: none of {of} has a result"
    some = of if len(judged) == len(findings) else f"{len(judged)} of {of}"
    if count == 1:
        return f"{names} alone shows what it does, not what it is better or worse than, in {some}"
    return f"Nothing here decides: {names} do the same in {some}"


def _decides(found: Finding, columns: Sequence[Column], what: str) -> bool:
    """True if columns with the same ``what`` ("semantics", "profile") all did the same."""
    outcome = {
        column: outcome
        for outcome, ids in kinds(found.scenario, found.observations).items()
        for column in ids
    }
    groups: dict[str, set[str]] = {}
    for column in columns:
        if column.id in outcome:
            groups.setdefault(getattr(column, what), set()).add(outcome[column.id])
    return len(groups) > 1 and all(len(same) == 1 for same in groups.values())


def _recovery(findings: dict[Scenario, Finding]) -> list[str]:
    """A sentence where some column takes much longer than another to bring work back."""
    crash = findings.get("crash")
    times = {
        one.column: number.median
        for one in (crash.observations if crash else ())
        for number in one.numbers
        if number.name == "until it came again" and number.median is not None
    }
    if not times:
        return []
    quick, slow = min(times, key=lambda one: times[one]), max(times, key=lambda one: times[one])
    if times[slow] < max(1000.0, _MUCH_SLOWER * times[quick]):
        return []
    first, last = measured(times[quick], "ms"), measured(times[slow], "ms")
    return [f"after a crash the work came again in {first} on {quick} and in {last} on {slow}"]


def _doubts(findings: Sequence[Finding]) -> list[str]:
    seen = [one for finding in findings for one in finding.observations]
    broken = sum(one.agrees == "no" for one in seen)
    unclear = sum(one.mark == "unclear" for one in seen)
    parts = []
    if broken:
        parts.append(f"{measured(broken, 'observations')} not as declared")
    if unclear:
        parts.append(f"{unclear} could not be judged")
    return parts


def _advice(columns: Sequence[Column], findings: dict[Scenario, Finding]) -> tuple[Advice, ...]:
    """Needs that only some columns meet, those with the same columns together."""
    grouped: dict[tuple[str, ...], list[Reason]] = {}
    for known in NEEDS.values():
        found = findings.get(known.scenario)
        clear = [one for one in (found.observations if found else ()) if one.mark != "unclear"]
        good = [one for one in clear if one.outcome in known.need.outcomes]
        bad = [one for one in clear if one.outcome not in known.need.outcomes]
        if good and bad:
            ids = tuple(one.column for one in good)
            grouped.setdefault(ids, []).append(_reason(known, good, bad))
    return tuple(
        Advice(take=_called(ids, columns), columns=ids, reasons=tuple(reasons))
        for ids, reasons in grouped.items()
    )


def _reason(known: Known, good: Sequence[Observation], bad: Sequence[Observation]) -> Reason:
    return Reason(
        need=known.need.text, scenario=known.scenario, met=_evidence(good), unmet=_evidence(bad)
    )


def _called(ids: Sequence[str], columns: Sequence[Column]) -> str:
    """ "a stream" for all streams of several brokers, else the columns."""
    name = named(ids, columns)
    kind = next(column.semantics for column in columns if column.id in ids)
    return f"a {kind}" if name.endswith(f"{kind}s") else listed(ids, "or")


def _evidence(observations: Sequence[Observation]) -> str:
    """What was seen, columns that show the same together."""
    shown: dict[str, list[str]] = {}
    for one in observations:
        shown.setdefault(one.shown, []).append(one.column)
    return "; ".join(f"{listed(ids)} ({what})" for what, ids in shown.items())
