"""Vega-Lite specifications, one for each kind of chart. Colours are names, filled in on the page.

A specification gets its rows from the page as ``data.name = "rows"``; here is only how they are
drawn. Every difference that a colour makes is also made by a shape, a dash or a position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gearshift.compare.findings import Chart, ChartKind

__all__ = ["specification"]

Spec = dict[str, Any]


def specification(chart: Chart) -> Spec:
    """The specification of ``chart``, whose rows the page binds as the data set ``rows``."""
    spec = _KINDS[chart.kind](chart)
    return {"width": "container", "data": {"name": "rows"}, **spec}


def _order(_: Chart) -> Spec:
    """Processing order against publishing order; what came too late is ringed."""
    x, y = _number("sent", "sent as number"), _number("handled", "handled as number")
    place = {"x": x, "y": y} | _tooltip("sent", "handled", "key", "worker", "inverted")
    series = {"color": _series("worker"), "shape": {"field": "worker", "type": "nominal"}}
    return {
        "height": 260,
        "layer": [
            _layer(_IDEAL | {"strokeDash": [4, 4]}, {"x": x, "y": _number("sent")}),
            _layer({"type": "point", "filled": True, "size": 22, "opacity": 0.8}, place | series),
            _layer(
                {"type": "point", "size": 130, "strokeWidth": 1.6, "color": "@bad"},
                place,
                {"filter": "datum.inverted"},
            ),
        ],
    }


def _swimlane(chart: Chart) -> Spec:
    """A lane for each worker; deliveries of one message that came again are joined."""
    place = {"x": _time("start_ms"), "y": _name("worker")}
    work = {"filter": "datum.state != 'kill'"}
    times = {"joinaggregate": [{"op": "count", "as": "times"}], "groupby": ["seq"]}
    cross = {"type": "point", "shape": "cross", "size": 260, "angle": 45, "filled": True}
    return {
        "height": _lanes(chart, "worker", 34),
        "layer": [
            _layer(
                {"type": "tick", "thickness": 2, "color": "@bad", "size": 30},
                place,
                work,
                {"filter": "datum.again"},
            ),
            _layer(
                {"type": "bar", "height": 16, "cornerRadius": 2},
                place
                | {"x2": {"field": "end"}, "color": _states()}
                | _tooltip("seq", "key", "worker", "attempt", "state", "start_ms"),
                work,
                _END_OF_BAR,
            ),
            _layer(
                {"type": "line", "strokeWidth": 1, "opacity": 0.7, "color": "@bad"},
                place | {"detail": {"field": "seq", "type": "nominal"}},
                work,
                times,
                {"filter": "datum.times > 1"},
            ),
            _layer(
                cross | {"color": "@text"},
                place | {"tooltip": {"value": "the worker was killed"}},
                {"filter": "datum.state == 'kill'"},
            ),
        ],
    }


def _copies(_: Chart) -> Spec:
    """Copies that each group received, of what was sent before and after it came."""
    phases = ["before", "after"]
    place = {
        "x": _name("group") | {"axis": {"labelAngle": 0}},
        "xOffset": {"field": "phase", "sort": phases},
    }
    return {
        "height": 200,
        "layer": [
            _layer(
                {"type": "bar"},
                place
                | {"y": _number("received", "messages"), "color": _series("phase", phases)}
                | _tooltip("group", "phase", "sent", "received"),
            ),
            _layer(
                {"type": "tick", "thickness": 2, "color": "@text", "size": 26},
                place | {"y": _number("sent")},
            ),
        ],
    }


def _offsets(_: Chart) -> Spec:
    """Offsets over time: the reading, the rewind, the second reading."""
    return {
        "height": 220,
        "mark": {"type": "line", "point": {"size": 14}, "strokeWidth": 1.4},
        "encoding": {
            "x": _time("at_ms"),
            "y": _number("offset"),
            "color": _series("partition"),
            "strokeDash": {"field": "pass", "type": "nominal"},
            **_tooltip("at_ms", "partition", "offset", "pass"),
        },
    }


def _timeline(chart: Chart) -> Spec:
    """A lane for each key: what happens to the others while one message keeps failing."""
    return {
        "height": _lanes(chart, "key", 26),
        "transform": [_END_OF_BAR],
        "mark": {"type": "bar", "height": 14, "cornerRadius": 2},
        "encoding": {
            "x": _time("start_ms"),
            "x2": {"field": "end"},
            "y": _name("key"),
            "color": _states(),
            **_tooltip("key", "seq", "attempt", "state", "start_ms"),
        },
    }


def _small_multiples(chart: Chart) -> Spec:
    """Each number over time, on a scale of its own."""
    units = {str(row[0]): str(row[1]) for row in chart.rows}
    return {
        "vconcat": [
            {
                "width": "container",
                "height": 110,
                "mark": {
                    "type": "area", "line": True, "opacity": 0.35, "interpolate": "step-after",
                },
                "transform": [{"filter": {"field": "name", "equal": name}}],
                "encoding": {
                    "x": _time("at_ms"),
                    "y": _number("value", [name.replace("_", " "), f"({unit})"]),
                    "color": {"value": "@series1"},
                    **_tooltip("name", "at_ms", "value", "unit"),
                },
            }
            for name, unit in units.items()
        ]
    }  # fmt: skip


def _scaling(_: Chart) -> Spec:
    """Throughput against workers, every repetition, with the ideal line."""
    x = {"field": "workers", "type": "quantitative", "axis": {"tickMinStep": 1}}
    y = _number("messages_per_s", "messages per second")
    tooltip = _tooltip("workers", "messages_per_s", "busy_workers", "repetition")
    return {
        "height": 240,
        "layer": [
            _layer(
                _IDEAL | {"strokeDash": [5, 4]},
                {"x": x, "y": {"field": "ideal_per_s", "aggregate": "median"}},
            ),
            _layer(
                {"type": "line", "color": "@series1", "strokeWidth": 2},
                {"x": x, "y": y | {"aggregate": "median"}},
            ),
            _layer(
                {"type": "point", "filled": True, "size": 50, "color": "@series1"},
                {"x": x, "y": y} | tooltip,
            ),
            _layer(
                {"type": "text", "dy": -14, "color": "@text"},
                {"x": x, "y": y, "text": {"field": "busy"}},
                {"calculate": "datum.busy_workers + ' busy'", "as": "busy"},
            ),
        ],
    }


_KINDS: Mapping[ChartKind, Callable[[Chart], Spec]] = {
    "order": _order,
    "swimlane": _swimlane,
    "copies": _copies,
    "offsets": _offsets,
    "timeline": _timeline,
    "series": _small_multiples,
    "scaling": _scaling,
}

_IDEAL: Spec = {"type": "line", "color": "@faint"}

#: A delivery that never ended, or at once, is still to be seen.
_END_OF_BAR: Spec = {
    "calculate": "max(isValid(datum.end_ms) ? datum.end_ms : datum.start_ms, datum.start_ms) + 1",
    "as": "end",
}


def _layer(mark: Spec, encoding: Spec, *transform: Spec) -> Spec:
    return {"mark": mark, "encoding": encoding, "transform": list(transform)}


def _tooltip(*names: str) -> Spec:
    return {"tooltip": [{"field": name} for name in names]}


def _number(field: str, title: str | list[str] | None = None) -> Spec:
    named = {} if title is None else {"title": title}
    return {"field": field, "type": "quantitative", **named}


def _time(field: str) -> Spec:
    return _number(field) | {"axis": {"title": "milliseconds since the start"}}


def _name(field: str) -> Spec:
    return {"field": field, "type": "nominal", "title": None}


def _series(field: str, sort: list[str] | None = None) -> Spec:
    scale = {"range": [f"@series{number}" for number in range(1, 9)]}
    return {"field": field, "type": "nominal", "scale": scale, "sort": sort}


def _states() -> Spec:
    scale = {"domain": ["done", "failed", "killed"], "range": ["@series1", "@bad", "@text"]}
    return _name("state") | {"scale": scale}


def _lanes(chart: Chart, field: str, each: int) -> int:
    """Height in pixels of one lane for each value of ``field``."""
    at = [known.name for known in chart.fields].index(field)
    return each * max(1, len({row[at] for row in chart.rows}))
