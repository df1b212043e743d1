"""The charts of the performance page, drawn as those of ``gearshift compare`` are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from gearshift.compare.report.charts import CONFIG
from gearshift.compare.report.drawing import draw

Row = dict[str, Any]

_STYLE = resources.files("gearshift.compare.report").joinpath("style.css").read_text()
_LIGHT = dict(re.findall(r"--(\w+): (#\w+);", _STYLE.partition("@media")[0]))
_QUANTITY = {"type": "quantitative"}


def ratios(rows: Sequence[Row]) -> str:
    """``label``, ``low``, ``middle``, ``high`` and ``sort`` of each: a dot on a line, beside 1."""
    x = {"field": "low", **_QUANTITY, "scale": {"type": "log", "nice": False}}
    x["axis"] = {
        "title": "times as fast as the other client",
        "tickCount": 6,
        "format": "~g",
        "grid": False,
    }
    y = {"field": "label", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelLimit": 400, "ticks": False, "domain": False}
    sorts = {
        "the broker's own client": "series1",
        "another library": "series2",
        "Gearshift in another way": "series3",
    }
    colour = _scale("sort", sorts)
    shapes = ["circle", "square", "diamond"]
    shape = colour | {"scale": {"domain": list(sorts), "range": shapes}}
    one = {"mark": {"type": "rule", "color": "var(--text)"}, "encoding": {"x": {"datum": 1}}}
    line = {"mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"x": x, "x2": {"field": "high"}, "y": y, "color": colour}}  # fmt: skip
    dot = {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
           "encoding": {"x": x | {"field": "middle"}, "y": y, "color": colour,
                        "shape": shape}}  # fmt: skip
    spec = {"width": 420, "height": {"step": 17}, "layer": [one, line, dot]}
    return _drawn(spec, rows, "ratios", "How fast Gearshift is compared with other clients",
                  "The tables below have every figure.")  # fmt: skip


def growth(rows: Sequence[Row]) -> str:
    """``series``, ``kind``, ``way``, ``at``, ``rate`` of each: a chart for each series and way."""
    axes = {
        "backlog": "messages that wait", "channels": "channels", "consumers": "consumers",
        "size": "bytes of a body",
    }  # fmt: skip
    kinds = {"memory": "series3", "sqlite": "series4", "rabbitmq": "series2", "kafka": "series1"}
    colour = _scale("kind", kinds)
    shapes = ["circle", "square", "triangle-up", "diamond"]
    shape = colour | {"scale": {"domain": list(kinds), "range": shapes}}
    charts = [
        {"vconcat": [_grown(series, way, axis, colour, shape) for way in ("sent", "received")]}
        for series, axis in axes.items()
    ]
    return _drawn({"concat": charts, "columns": 2}, rows, "growth", "How rates go with growth",
                  "Messages a second sent and received, on logarithmic scales; for sizes "
                  "megabytes a second. The table below has every figure.")  # fmt: skip


def _grown(series: str, way: str, axis: str, colour: Row, shape: Row) -> Row:
    log = {"type": "log", "nice": False}
    unit = "MB/s" if series == "size" else "messages/s"
    below = {"title": axis, "format": "~s", "grid": False, "tickCount": 4}
    x = {"field": "at", **_QUANTITY, "scale": log, "axis": below}
    y = {"field": "rate", **_QUANTITY, "scale": {"type": "log"},
         "axis": {"title": f"{way}, {unit}", "format": "~s", "tickCount": 3}}  # fmt: skip
    return {
        "width": 260,
        "height": 110,
        "transform": [{"filter": f"datum.series == '{series}' && datum.way == '{way}'"}],
        "encoding": {"x": x, "y": y, "color": colour},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1.8}},
            {"mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
             "encoding": {"shape": shape}},
        ],
    }  # fmt: skip


def _scale(field: str, colours: dict[str, str]) -> Row:
    scale = {"domain": list(colours), "range": [f"var(--{name})" for name in colours.values()]}
    legend = {"title": None, "orient": "top", "labelLimit": 300, "columnPadding": 50}
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _drawn(spec: Row, rows: Sequence[Row], name: str, title: str, description: str) -> str:
    """As a file of its own: with the light colours, for pictures stand on white."""
    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "config": CONFIG,
        "data": {"values": list(rows)},
        "padding": {"left": 60, "top": 5, "right": 15, "bottom": 5},  # fonts differ in width
        **spec,
    }
    drawn = draw(whole, name, title, description)
    drawn = re.sub(r"var\(--(\w+)\)", lambda found: _LIGHT[found[1]], drawn)
    return drawn.replace("<svg ", '<svg font-family="system-ui, sans-serif" ', 1) + "\n"
