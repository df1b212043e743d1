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

_MS = {"type": "quantitative", "axis": {"title": "milliseconds since the start"}}


def specification(chart: Chart) -> Spec:
    """How ``chart`` is drawn; its rows are to be bound as the data set ``rows``."""
    spec = _KINDS[chart.kind](chart)
    return {"width": "container", "data": {"name": "rows"}, **spec}


def _order(chart: Chart) -> Spec:
    """Processing order against publishing order; what came too late is ringed."""
    x = {"field": "sent", "type": "quantitative", "title": "sent as number"}
    y = {"field": "handled", "type": "quantitative", "title": "handled as number"}
    tooltip = [{"field": name} for name in ("sent", "handled", "key", "worker", "inverted")]
    encoding = {"x": x, "y": y, "tooltip": tooltip}
    return {
        "height": 260,
        "layer": [
            {
                "mark": {"type": "line", "strokeDash": [4, 4], "color": "@faint"},
                "encoding": {"x": x, "y": {"field": "sent", "type": "quantitative"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.8},
                "encoding": encoding | {"color": _series("worker"), "shape": _shape("worker")},
            },
            {
                "transform": [{"filter": "datum.inverted"}],
                "mark": {"type": "point", "size": 130, "strokeWidth": 1.6, "color": "@bad"},
                "encoding": encoding,
            },
        ],
    }


def _swimlane(chart: Chart) -> Spec:
    """A lane for each worker; deliveries of one message that came again are joined."""
    y = {"field": "worker", "type": "nominal", "title": None}
    start = {"field": "start_ms", **_MS}
    work = {"filter": "datum.state != 'kill'"}
    return {
        "height": _lanes(chart, "worker", 34),
        "layer": [
            {
                "transform": [work, {"filter": "datum.again"}],
                "mark": {"type": "tick", "thickness": 2, "color": "@bad", "size": 30},
                "encoding": {"x": start, "y": y},
            },
            {
                "transform": [work, _end_of_bar()],
                "mark": {"type": "bar", "height": 16, "cornerRadius": 2},
                "encoding": {
                    "x": start,
                    "x2": {"field": "end"},
                    "y": y,
                    "color": _states(),
                    "tooltip": [
                        {"field": name}
                        for name in ("seq", "key", "worker", "attempt", "state", "start_ms")
                    ],
                },
            },
            {
                "transform": [
                    work,
                    {
                        "joinaggregate": [{"op": "count", "as": "times"}],
                        "groupby": ["seq"],
                    },
                    {"filter": "datum.times > 1"},
                ],
                "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.7, "color": "@bad"},
                "encoding": {"x": start, "y": y, "detail": {"field": "seq", "type": "nominal"}},
            },
            {
                "transform": [{"filter": "datum.state == 'kill'"}],
                "mark": {
                    "type": "point",
                    "shape": "cross",
                    "size": 260,
                    "angle": 45,
                    "filled": True,
                    "color": "@text",
                },
                "encoding": {"x": start, "y": y, "tooltip": {"value": "the worker was killed"}},
            },
        ],
    }


def _copies(chart: Chart) -> Spec:
    """What each group received of what was sent, before and after it came."""
    return {
        "height": 200,
        "layer": [
            {
                "mark": {"type": "bar"},
                "encoding": {
                    "x": {
                        "field": "group",
                        "type": "nominal",
                        "title": None,
                        "axis": {"labelAngle": 0},
                    },
                    "xOffset": {"field": "phase", "sort": ["before", "after"]},
                    "y": {"field": "received", "type": "quantitative", "title": "messages"},
                    "color": _series("phase", ["before", "after"]),
                    "tooltip": [{"field": n} for n in ("group", "phase", "sent", "received")],
                },
            },
            {
                "mark": {"type": "tick", "thickness": 2, "color": "@text", "size": 26},
                "encoding": {
                    "x": {"field": "group", "type": "nominal"},
                    "xOffset": {"field": "phase", "sort": ["before", "after"]},
                    "y": {"field": "sent", "type": "quantitative"},
                },
            },
        ],
    }


def _offsets(chart: Chart) -> Spec:
    """Offsets over time: the reading, the rewind, the second reading."""
    return {
        "height": 220,
        "mark": {"type": "line", "point": {"size": 14}, "strokeWidth": 1.4},
        "encoding": {
            "x": {"field": "at_ms", **_MS},
            "y": {"field": "offset", "type": "quantitative"},
            "color": _series("partition"),
            "strokeDash": {"field": "pass", "type": "nominal"},
            "tooltip": [{"field": name} for name in ("at_ms", "partition", "offset", "pass")],
        },
    }


def _timeline(chart: Chart) -> Spec:
    """A lane for each key: what happens to the others while one message keeps failing."""
    return {
        "height": _lanes(chart, "key", 26),
        "transform": [_end_of_bar()],
        "mark": {"type": "bar", "height": 14, "cornerRadius": 2},
        "encoding": {
            "x": {"field": "start_ms", **_MS},
            "x2": {"field": "end"},
            "y": {"field": "key", "type": "nominal", "title": None},
            "color": _states(),
            "tooltip": [{"field": n} for n in ("key", "seq", "attempt", "state", "start_ms")],
        },
    }


def _series_chart(chart: Chart) -> Spec:
    """Small multiples: each number over time, on a scale of its own."""
    panel: Spec = {
        "width": "container",
        "height": 110,
        "mark": {"type": "area", "line": True, "opacity": 0.35, "interpolate": "step-after"},
        "encoding": {
            "x": {"field": "at_ms", **_MS},
            "color": {"value": "@series1"},
            "tooltip": [{"field": name} for name in ("name", "at_ms", "value", "unit")],
        },
    }
    units = {str(row[0]): str(row[1]) for row in chart.rows}
    return {"vconcat": [_panel(panel, name, unit) for name, unit in units.items()]}


def _panel(panel: Spec, name: str, unit: str) -> Spec:
    title = [name.replace("_", " "), f"({unit})"]
    y = {"field": "value", "type": "quantitative", "title": title}
    return panel | {
        "transform": [{"filter": {"field": "name", "equal": name}}],
        "encoding": panel["encoding"] | {"y": y},
    }


def _scaling(chart: Chart) -> Spec:
    """Throughput against workers, every repetition, with the ideal line."""
    x = {"field": "workers", "type": "quantitative", "axis": {"tickMinStep": 1}}
    y = {"field": "messages_per_s", "type": "quantitative", "title": "messages per second"}
    return {
        "height": 240,
        "layer": [
            {
                "mark": {"type": "line", "strokeDash": [5, 4], "color": "@faint"},
                "encoding": {"x": x, "y": {"field": "ideal_per_s", "aggregate": "median"}},
            },
            {
                "mark": {"type": "line", "color": "@series1", "strokeWidth": 2},
                "encoding": {"x": x, "y": y | {"aggregate": "median"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 50, "color": "@series1"},
                "encoding": {
                    "x": x,
                    "y": y,
                    "tooltip": [
                        {"field": name}
                        for name in ("workers", "messages_per_s", "busy_workers", "repetition")
                    ],
                },
            },
            {
                "mark": {"type": "text", "dy": -14, "color": "@text"},
                "transform": [{"calculate": "datum.busy_workers + ' busy'", "as": "busy"}],
                "encoding": {"x": x, "y": y, "text": {"field": "busy"}},
            },
        ],
    }


_KINDS: Mapping[ChartKind, Callable[[Chart], Spec]] = {
    "order": _order,
    "swimlane": _swimlane,
    "copies": _copies,
    "offsets": _offsets,
    "timeline": _timeline,
    "series": _series_chart,
    "scaling": _scaling,
}


def _lanes(chart: Chart, field: str, each: int) -> int:
    """Height in pixels of one lane for each value of ``field``."""
    at = [known.name for known in chart.fields].index(field)
    return each * max(1, len({row[at] for row in chart.rows}))


def _series(field: str, sort: list[str] | None = None) -> Spec:
    scale = {"range": [f"@series{number}" for number in range(1, 9)]}
    return {"field": field, "type": "nominal", "scale": scale, "sort": sort}


def _shape(field: str) -> Spec:
    return {"field": field, "type": "nominal"}


def _states() -> Spec:
    scale = {
        "domain": ["done", "failed", "killed"],
        "range": ["@series1", "@bad", "@text"],
    }
    return {"field": "state", "type": "nominal", "scale": scale, "title": None}


def _end_of_bar() -> Spec:
    """A delivery that never ended, or at once, is still to be seen."""
    return {
        "calculate": "max(isValid(datum.end_ms) ? datum.end_ms : datum.start_ms, datum.start_ms)"
        " + 1",
        "as": "end",
    }
