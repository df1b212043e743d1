"""Findings of a comparison: plain structs, computed from a ledger and nothing else.

::

    Finding                one a scenario, in the order of ``ledger.SCENARIOS``
      scenario, title, question
      verdict              same | differs | unsupported | inconclusive
      summary              one sentence
      handler              what your handler must do
      choices[]            Choice: "if you need ..." take [columns], with evidence
      observations[]       Observation, one a column, in the order of the columns
        outcome            a token that verdicts compare, such as "key" or "lost"
        shown              the matrix' cell: a few words
        sentence           the same in a sentence, with numbers
        verdict            against the first column
        expected           Expectation: outcome and sentence from the declared capabilities
        agrees             yes | no | better (more than was promised) | unknown
        numbers[]          Number: name, unit, a value per trial
        charts[]           Chart: fields and rows; also readable as a table
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from gearshift.compare.ledger import Scenario

__all__ = [
    "Agreement",
    "Cell",
    "Chart",
    "ChartKind",
    "Choice",
    "Expectation",
    "Field",
    "Finding",
    "Number",
    "Observation",
    "Verdict",
]

Verdict = Literal["same", "differs", "unsupported", "inconclusive"]
Agreement = Literal["yes", "no", "better", "unknown"]
ChartKind = Literal["order", "swimlane", "copies", "offsets", "timeline", "series", "scaling"]

#: The columns of each kind of chart, those of numbers with their unit. In ``swimlane`` rows, an
#: ``end_ms`` of None is work that never ended, and the state "kill" marks that moment.
_COLUMNS: Mapping[ChartKind, str] = {
    "order": "sent handled key worker inverted",
    "swimlane": "worker seq key start_ms:ms end_ms:ms attempt state again",
    "copies": "group phase sent:messages received:messages",
    "offsets": "at_ms:ms offset partition pass",
    "timeline": "key seq start_ms:ms end_ms:ms attempt state",
    "series": "name unit at_ms:ms value",
    "scaling": "workers messages_per_s:messages/s ideal_per_s:messages/s busy_workers repetition",
}

#: A value of a chart's row.
Cell = bool | int | float | str | None


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """A measured number: one value per trial that could measure it, all kept."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float | None:
        """The middle value, the lower one of two; None without values."""
        ordered = sorted(self.values)
        return ordered[(len(ordered) - 1) // 2] if ordered else None


class Field(msgspec.Struct, frozen=True):
    """A column of a chart's table: its name and, for numbers, its unit."""

    name: str
    unit: str = ""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart's data as a table; ``kind`` says how to draw it."""

    kind: ChartKind
    title: str
    fields: tuple[Field, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @staticmethod
    def of(kind: ChartKind, title: str, rows: Iterable[tuple[Cell, ...]]) -> Chart:
        """A chart with the columns of its kind."""
        fields = tuple(Field(*column.split(":")) for column in _COLUMNS[kind].split())
        return Chart(kind=kind, title=title, fields=fields, rows=tuple(rows))


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome that the declared capabilities promise. ``because`` names them."""

    outcome: str
    sentence: str
    because: str


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """The behaviour of one column in a scenario."""

    column: str
    outcome: str
    shown: str
    sentence: str
    verdict: Verdict
    expected: Expectation
    agrees: Agreement
    numbers: tuple[Number, ...] = ()
    charts: tuple[Chart, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Advice: if you need ``need``, take one of ``take``; ``evidence`` is what was seen."""

    need: str
    take: tuple[str, ...]
    evidence: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a scenario, over all columns."""

    scenario: Scenario
    title: str
    question: str
    verdict: Verdict
    summary: str
    handler: str
    choices: tuple[Choice, ...]
    observations: tuple[Observation, ...]
