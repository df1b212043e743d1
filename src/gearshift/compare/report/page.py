"""Draws findings into one file: the same ledger gives the same bytes."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

import msgspec

from gearshift.compare import ledger as ledgers
from gearshift.compare.analysis import headline
from gearshift.compare.findings import Cell, Chart, Finding, Number
from gearshift.compare.ledger import Ledger
from gearshift.compare.report.charts import specification
from gearshift.errors import UsageError
from gearshift.extras import importing

with importing("compare"):
    import jinja2

__all__ = ["extract", "render"]

#: Rows of a chart that are written out as a table; the ledger has all of them.
TABLE_ROWS = 100

_LEDGER = re.compile(rb'<script type="application/gzip" id="ledger">([A-Za-z0-9+/=]*)</script>')

_VERDICTS = {
    "same": ("=", "same"),
    "differs": ("\N{NOT EQUAL TO}", "differs"),
    "unsupported": ("\N{EN DASH}", "unsupported"),
    "inconclusive": ("?", "inconclusive"),
}


def render(ledger: Ledger, findings: Sequence[Finding]) -> str:
    """The whole page. Pure: the same arguments give the same text."""
    ledger = ledgers.decode(ledgers.encode(ledger))  # in the order that a saved one has
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            meta=ledger.meta,
            columns=ledger.meta.columns,
            findings=findings,
            verdicts=_VERDICTS,
            headline=headline(ledger, findings),
            mismatches=[
                (finding, observation)
                for finding in findings
                for observation in finding.observations
                if observation.agrees in ("no", "unknown")
            ],
            charts=_charts(findings),
            ledger=_pack(ledgers.encode(ledger)),
            table_rows=TABLE_ROWS,
        )
    )


def extract(page: bytes) -> Ledger:
    """The ledger inside a report. Raises UsageError if there is none."""
    found = _LEDGER.search(page)
    if found is None:
        raise UsageError("this file holds no ledger", hint="give a report, or a ledger's JSON")
    return ledgers.decode(gzip.decompress(base64.b64decode(found[1])), "the report's ledger")


def _charts(findings: Sequence[Finding]) -> str:
    """Specifications and rows of every chart, by the id of its place on the page."""
    drawn = {
        chart_id(finding, column, number): {
            "specification": specification(chart),
            "fields": [field.name for field in chart.fields],
            "rows": chart.rows,
        }
        for finding in findings
        for column, observation in enumerate(finding.observations)
        for number, chart in enumerate(observation.charts)
    }
    # Inside a script element only this sequence could end it.
    return msgspec.json.encode(drawn).decode().replace("</", "<\\/")


def chart_id(finding: Finding, column: int, number: int) -> str:
    """The id of a chart's place on the page."""
    return f"chart-{finding.scenario}-{column}-{number}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"cell": _cell, "numbers": _numbers, "described": _described}
    environment.globals |= {"text": _text, "packed": _packed, "chart_id": chart_id}
    return environment


@cache
def _packed(name: str) -> str:
    return _pack(_text(name).encode())


def _pack(data: bytes) -> str:
    """``data`` as the page's script unpacks it; without a time, so that it is always the same."""
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def _text(name: str) -> str:
    return resources.files("gearshift.compare.report").joinpath(name).read_text(encoding="utf-8")


def _cell(value: Cell) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.1f}".replace(".0", "") if isinstance(value, float) else str(value)


def _numbers(number: Number) -> str:
    """The middle value, and every one of them where there are more."""
    if not number.values:
        return "n/a"
    shown = _cell(number.median)
    others = "; ".join(_cell(value) for value in number.values)
    return f"{shown} {number.unit}".strip() + (f" (of {others})" if len(number.values) > 1 else "")


def _described(chart: Chart) -> str:
    """A chart in words, for readers who do not see it."""
    fields = ", ".join(field.name for field in chart.fields)
    return f"{chart.title}. {len(chart.rows)} rows of {fields}; the table below has them."
