"""Says in a clause what columns of a comparison do alike and others do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gearshift.compare.findings import Observation
from gearshift.compare.judges import JUDGES
from gearshift.compare.ledger import Column, Scenario
from gearshift.compare.words import listed, several

__all__ = ["contrast", "kinds", "named"]


def kinds(scenario: Scenario, observations: Iterable[Observation]) -> dict[str, list[str]]:
    """The columns that did the same, by an outcome of theirs. Unclear ones are left out."""
    outcomes = JUDGES[scenario].outcomes
    found: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    for one in observations:
        if one.mark != "unclear":
            does = outcomes[one.outcome].does if one.outcome in outcomes else one.outcome
            found.setdefault(said.setdefault(does, one.outcome), []).append(one.column)
    return found


def contrast(
    scenario: Scenario, observations: Sequence[Observation], columns: Sequence[Column]
) -> str:
    """Such as "both queues lose a key's order with three workers, both streams keep it"."""
    outcomes = JUDGES[scenario].outcomes
    clauses = []
    for number, (outcome, ids) in enumerate(kinds(scenario, observations).items()):
        words = outcomes.get(outcome)
        does = "are refused" if words is None else (number and words.again) or words.does
        clauses.append(_clause(named(ids, columns), does, len(ids)))
    unclear = [one.column for one in observations if one.mark == "unclear"]
    if unclear:
        clauses.append(f"{listed(unclear)} {'are' if len(unclear) > 1 else 'is'} not clear")
    return ", ".join(clauses)


def named(ids: Sequence[str], columns: Sequence[Column]) -> str:
    """The columns ``ids`` as people call them: "both queues", "the stream", "a and b"."""
    kinds_of = {column.semantics for column in columns if column.id in ids}
    whole = {column.id for column in columns if column.semantics in kinds_of}
    if len(kinds_of) == 1 and set(ids) == whole and len(whole) < len(columns):
        (kind,) = kinds_of
        return several(len(ids), kind)
    if len(ids) == len(columns) > 2:
        return several(len(ids), "")
    return listed(ids)


def _clause(who: str, does: str, count: int) -> str:
    if does.startswith("cannot") and who.startswith("both "):
        return f"neither {who[5:-1]} can{does[6:]}"
    return f"{who} {does if count > 1 else _singular(does)}"


def _singular(does: str) -> str:
    verb, space, rest = does.partition(" ")
    if verb == "are":
        return f"is{space}{rest}"
    return does if verb in ("can", "cannot") else f"{verb}s{space}{rest}"
