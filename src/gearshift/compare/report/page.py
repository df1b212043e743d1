"""Draws a comparison into one file: the same ledger gives the same bytes."""

from __future__ import annotations

import base64
import lzma
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from gearshift.compare import ledger as ledgers
from gearshift.compare.findings import Cell, Chart, Finding, Number
from gearshift.compare.ledger import Ledger
from gearshift.compare.needs import verdict
from gearshift.compare.report.charts import LEGENDS, specification
from gearshift.compare.report.drawing import draw
from gearshift.compare.words import listed, measured
from gearshift.errors import UsageError
from gearshift.extras import importing

if TYPE_CHECKING:
    from gearshift.compare.comparison import Comparison

with importing("compare"):
    import jinja2

__all__ = ["extract", "render"]

#: Rows of a chart that are written out as a table; the ledger has all of them.
TABLE_ROWS = 60

_LEDGER = re.compile(rb'<template id="ledger">([A-Za-z0-9+/=]*)</template>')

#: Mark → its sign and its word, so that no colour is needed to read it.
_MARKS = {
    "keeps": ("\N{CHECK MARK}", "yes"),
    "loses": ("\N{MULTIPLICATION X}", "no"),
    "cannot": ("\N{EN DASH}", "cannot"),
    "unclear": ("?", "not clear"),
}


def render(comparison: Comparison) -> str:
    """The whole page. Pure: the same ledger gives the same text."""
    ledger, findings = comparison.ledger, comparison.findings
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            meta=ledger.meta,
            columns=ledger.meta.columns,
            findings=findings,
            decision=comparison.decision,
            ranked=comparison.ranked,
            titles={finding.scenario: finding.title for finding in findings},
            marks=_MARKS,
            mismatches=[
                (finding, observation)
                for finding in findings
                for observation in finding.observations
                if observation.agrees in ("no", "unknown")
            ],
            ledger=_pack(ledgers.encode(ledger)),
            table_rows=TABLE_ROWS,
        )
    )


def extract(page: bytes) -> Ledger:
    """The ledger inside a report. Raises UsageError if there is none."""
    found = _LEDGER.search(page)
    if found is None:
        raise UsageError("this file holds no ledger", hint="give a report, or a ledger's JSON")
    return ledgers.decode(lzma.decompress(base64.b64decode(found[1])), "the report's ledger")


def _drawn(finding: Finding, column: int, number: int) -> str:
    """A chart as SVG, on the scales of the charts of all columns."""
    observation = finding.observations[column]
    chart = observation.charts[number]
    together = [other for one in finding.observations for other in one.charts]
    return draw(
        specification(chart, [other for other in together if other.kind == chart.kind]),
        f"{finding.scenario}-{column}-{number}",
        f"{chart.title}: {observation.column}",
        f"{observation.sentence} {_described(chart)}",
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"cell": _cell, "numbers": _numbers, "listed": listed}
    environment.globals |= {"text": _text, "drawn": _drawn, "legends": LEGENDS, "verdict": verdict}
    return environment


def _pack(data: bytes) -> str:
    return base64.b64encode(lzma.compress(data)).decode()


def _text(name: str) -> str:
    return resources.files("gearshift.compare.report").joinpath(name).read_text(encoding="utf-8")


def _cell(value: Cell) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return measured(value) if value is None or isinstance(value, float) else str(value)


def _numbers(number: Number) -> str:
    """The middle value, and every one of them where there are more."""
    shown = measured(number.median, number.unit)
    if len(number.values) < 2:
        return shown
    return f"{shown} (of {', '.join(measured(value, number.unit) for value in number.values)})"


def _described(chart: Chart) -> str:
    """A chart in words, for readers who do not see it."""
    fields = ", ".join(field.name.replace("_", " ") for field in chart.fields)
    return f"{len(chart.rows)} rows of {fields}; the table below has them."
