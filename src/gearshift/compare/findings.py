"""Findings of a comparison: plain structs, computed from a ledger and nothing else.

::

    Finding                one a scenario, in the order of ``ledger.SCENARIOS``
      scenario, title, question
      verdict              same | differs | unsupported | inconclusive: over all columns
      summary              one sentence
      handler              what your handler must do
      observations[]       Observation, one a column, in the order of the columns
        outcome            a token that verdicts compare, such as "key" or "lost"
        mark               keeps | loses | cannot | unclear: the matrix' cell, in one look
        shown              the same in a few words, with the numbers that count
        sentence           the same in a sentence, with numbers
        expected           Expectation: outcome and sentence from the declared capabilities
        caution            why an embedded column must not be taken for a real broker, or ""
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
    "Expectation",
    "Field",
    "Finding",
    "FindingVerdict",
    "Mark",
    "Number",
    "Observation",
]

FindingVerdict = Literal["same", "differs", "unsupported", "inconclusive"]
Agreement = Literal["yes", "no", "better", "unknown"]
Mark = Literal["keeps", "loses", "cannot", "unclear"]
ChartKind = Literal["order", "crash", "copies", "offsets", "poison", "backlog", "scaling"]

#: The fields of each kind of chart, those of numbers with their unit. Rows of ``crash`` have the
#: states done, killed, again and "waits", the time until the killed worker's message came again;
#: ``attempt`` counts the tries of the poison.
_FIELDS: Mapping[ChartKind, str] = {
    "order": "key sent handled worker state",
    "crash": "worker start_ms:ms end_ms:ms messages state",
    "copies": "group phase sent:messages received:messages",
    "offsets": "at_ms:ms offset partition pass",
    "poison": "key message at_ms:ms attempt",
    "backlog": "where at_ms:ms messages",
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
    """A field of a chart's rows: its name and, for numbers, its unit."""

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
        """A chart with the fields of its kind."""
        fields = tuple(Field(*field.split(":")) for field in _FIELDS[kind].split())
        return Chart(kind=kind, title=title, fields=fields, rows=tuple(rows))


class Expectation(msgspec.Struct, frozen=True):
    """The outcome that the declared capabilities promise. ``because`` names them."""

    outcome: str
    sentence: str
    because: str


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """The behaviour of one column in a scenario."""

    column: str
    outcome: str
    mark: Mark
    shown: str
    sentence: str
    expected: Expectation
    agrees: Agreement
    caution: str = ""
    numbers: tuple[Number, ...] = ()
    charts: tuple[Chart, ...] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a scenario, over all columns."""

    scenario: Scenario
    title: str
    subject: str
    question: str
    verdict: FindingVerdict
    summary: str
    handler: str
    observations: tuple[Observation, ...]
