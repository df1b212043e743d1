"""Vega-Lite specifications, one for each kind of chart, and the legends that go with them.

The charts of a scenario share their scales: ``together`` are those of all columns. Colours are
properties of the page's style, so that one drawing serves light, dark and print. What a colour
tells is also told by a shape, a dash or a place.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gearshift.compare.findings import Cell, Chart, ChartKind
from gearshift.compare.words import measured

__all__ = ["CONFIG", "LEGENDS", "specification"]

Spec = dict[str, Any]
Row = dict[str, Any]

WIDTH = 360
_MOST_KEYS = 12  # the chart of more is not read

#: Kind → the shape, colour and meaning of each of its marks.
LEGENDS: Mapping[ChartKind, tuple[tuple[str, str, str], ...]] = {
    "order": (
        ("rise", "series1", "a key's messages: rising is in order"),
        ("diamond", "bad", "handled after a later one of its key"),
        ("ring", "bad", "handled beside an earlier one of its key"),
    ),
    "crash": (
        ("square", "series1", "at work"),
        ("square", "text", "in the handler that was killed"),
        ("square", "bad", "came again"),
        ("dash", "bad", "until the killed worker's message came again"),
    ),
    "copies": (
        ("square", "series1", "sent before the late group came"),
        ("square", "series3", "sent after"),
        ("frame", "soft", "sent, and not received by this group"),
    ),
    "offsets": (
        ("rise", "series1", "first reading, a line for each partition"),
        ("dash", "series2", "read again"),
    ),
    "poison": (
        ("tick", "series1", "a message is handled"),
        ("number", "bad", "a try of the message that fails"),
    ),
    "backlog": (
        ("square", "series1", "waiting in all"),
        ("rise", "series3", "of it at the broker"),
        ("dash", "series2", "of it held by the consumer"),
    ),
    "scaling": (
        ("rise", "series1", "messages per second"),
        ("dash", "soft", "if each worker did as much as one alone"),
    ),
}


def specification(chart: Chart, together: Sequence[Chart]) -> Spec:
    """The specification of ``chart``, on the scales of all charts that stand ``together``."""
    rows, every = _rows(chart), [row for one in together for row in _rows(one)]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": WIDTH,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": CONFIG,
        **_KINDS[chart.kind](rows, every),
    }


def _order(rows: list[Row], every: list[Row]) -> Spec:
    """A row for each key, in which a line rises where the order is kept."""
    keys = [key for key, _ in Counter(row["key"] for row in every).most_common(_MOST_KEYS)]
    keys.sort(key=lambda key: (len(key), key), reverse=True)
    places = {key: sorted({row["sent"] for row in every if row["key"] == key}) for key in keys}
    for row in rows:
        if (sent := places.get(row["key"])) is not None:
            within = sent.index(row["sent"]) / max(1, len(sent) - 1)
            row["height"] = round(keys.index(row["key"]) + 0.08 + 0.84 * within, 3)
    axis = {
        "values": [number + 0.45 for number in range(len(keys))],
        "labelExpr": f"{json.dumps(keys)}[floor(datum.value)]",
        "grid": False, "ticks": False, "title": None,
    }  # fmt: skip
    x = _x("handled", [1, len(rows)], "handled as number")
    y = {"field": "height", "type": "quantitative", "axis": axis,
         "scale": {"domain": [0, len(keys)], "nice": False}}  # fmt: skip
    mark = {"type": "point", "color": "var(--bad)", "opacity": 1}
    return _drawing(
        25 * len(keys) + 40, [row for row in rows if "height" in row],
        _layer(_line("series1"), {"x": x, "y": y, "detail": {"field": "key"}}),
        _layer(mark | {"shape": "diamond", "filled": True, "size": 55}, {"x": x, "y": y},
               "datum.state == 'overtaken'"),
        _layer(mark | {"size": 40, "strokeWidth": 1.5}, {"x": x, "y": y},
               "datum.state == 'beside'"),
    )  # fmt: skip


def _crash(rows: list[Row], every: list[Row]) -> Spec:
    """A row for each worker, by seconds since the kill, with the gap until the work came again."""
    workers = list(dict.fromkeys(["victim", *(row["worker"] for row in every)]))
    for row in rows:
        row["label"] = measured(row["end_ms"], "ms")
    span = [min(row["start_ms"] for row in every), max(row["end_ms"] for row in every)]
    x = _seconds("start_ms", span, "seconds since the worker was killed")
    x2 = {"field": "end_ms"}
    y = {"field": "worker", "type": "nominal", "sort": workers, "title": None}
    bar = {"type": "bar", "height": 15, "strokeWidth": 1.5}
    text = {"type": "text", "align": "left", "dx": 6, "dy": -9, "fontSize": 12,
            "fontWeight": "bold", "color": "var(--text)"}  # fmt: skip
    waits = "datum.state == 'waits'"
    return _drawing(
        40 * len(workers) + 46, rows,
        _layer({"type": "rule", "color": "var(--text)", "strokeWidth": 1.5},
               {"x": {"datum": 0}}),
        _layer(bar | _coloured("series1"), {"x": x, "x2": x2, "y": y},
               "datum.state == 'done'"),
        _layer(bar | _coloured("text"), {"x": x, "x2": x2, "y": y},
               "datum.state == 'killed'"),
        _layer(bar | _coloured("bad"), {"x": x, "x2": x2, "y": y}, "datum.state == 'again'"),
        _layer({"type": "rule", "strokeWidth": 3, "strokeDash": [4, 3], "color": "var(--bad)"},
               {"x": x, "x2": x2, "y": y}, waits),
        _layer(text, {"x": x, "y": y, "text": {"field": "label"}}, waits),
    )  # fmt: skip


def _copies(rows: list[Row], every: list[Row]) -> Spec:
    """Copies that each group received, of what was sent before and after the late one came."""
    groups = list(dict.fromkeys(row["group"] for row in every))
    offset: Counter[str] = Counter()
    for row in rows:
        start = offset[row["group"]]
        offset[row["group"]] += row["sent"]
        row |= {"from": start, "to": start + row["received"], "until": start + row["sent"]}
    x = _x("from", [0, max(offset.values(), default=1)], "messages", "quantitative")
    y = {"field": "group", "type": "nominal", "sort": groups, "title": None}
    bar = {"type": "bar", "height": 16}
    frame = {"fill": None, "stroke": "var(--soft)", "strokeDash": [3, 3]}
    return _drawing(
        30 * len(groups) + 46, rows,
        _layer(bar | frame, {"x": x, "x2": {"field": "until"}, "y": y},
               "datum.received < datum.sent"),
        *(
            _layer(bar | _coloured(colour), {"x": x, "x2": {"field": "to"}, "y": y},
                   f"datum.phase == '{phase}' && datum.received > 0")
            for phase, colour in (("before", "series1"), ("after", "series3"))
        ),
    )  # fmt: skip


def _offsets(rows: list[Row], every: list[Row]) -> Spec:
    """Offsets over time: the reading, the rewind, the second reading."""
    x = _seconds(
        "at_ms", [0, max(row["at_ms"] for row in every)], "seconds since the first message"
    )
    y = _y("offset", max(row["offset"] or 0 for row in every), "offset in its partition")
    place = {"x": x, "y": y, "detail": {"field": "partition"}}
    return _drawing(
        170, rows,
        _layer(_line("series1"), place, "datum.pass == 1"),
        _layer(_line("series2") | {"strokeDash": [5, 3]}, place, "datum.pass == 2"),
    )  # fmt: skip


def _poison(rows: list[Row], every: list[Row]) -> Spec:
    """A row for each key: what happens to the others while one message keeps failing."""
    failing = next((row["key"] for row in every if row["attempt"]), None)
    counted = Counter(row["key"] for row in every)
    keys = [failing, *(key for key, _ in counted.most_common(_MOST_KEYS) if key != failing)]
    span = [min(row["at_ms"] for row in every), max(row["at_ms"] for row in every)]
    x = _seconds("at_ms", span, "seconds since it failed first")
    y = {"field": "key", "type": "nominal", "sort": keys, "title": None}
    tries = "datum.attempt != null"
    return _drawing(
        19 * len(keys) + 46, [row for row in rows if row["key"] in keys],
        _layer({"type": "tick", "thickness": 1.5, "size": 11} | _coloured("series1"),
               {"x": x, "y": y}, "datum.attempt == null"),
        _layer({"type": "point", "filled": True, "size": 210, "opacity": 1}
               | {"color": "var(--bad)"}, {"x": x, "y": y}, tries),
        _layer({"type": "text", "color": "var(--card)", "fontSize": 11, "fontWeight": "bold"},
               {"x": x, "y": y, "text": {"field": "attempt"}}, tries),
    )  # fmt: skip


def _backlog(rows: list[Row], every: list[Row]) -> Spec:
    """Everything that waits, and where, on one scale."""
    x = _seconds("at_ms", [0, max(row["at_ms"] for row in every)], "seconds since the first one")
    y = _y("messages", max(row["messages"] for row in every), "messages")
    area = {"type": "area", "color": "var(--series1)", "opacity": 0.22}
    return _drawing(
        180, rows,
        _layer(area, {"x": x, "y": y}, "datum.where == 'waiting in all'"),
        _layer(_line("series3") | {"strokeWidth": 2}, {"x": x, "y": y},
               "datum.where == 'at the broker'"),
        _layer(_line("series2") | {"strokeDash": [5, 3]}, {"x": x, "y": y},
               "datum.where == 'held by the consumer'"),
    )  # fmt: skip


def _scaling(rows: list[Row], every: list[Row]) -> Spec:
    """Throughput against workers, every repetition; how many were busy, where not all were."""
    for row in rows:
        row["busy"] = f"{row['busy_workers']} busy"
    most = max(max(row["messages_per_s"] or 0, row["ideal_per_s"]) for row in every)
    x = _x("workers", [0.5, max(row["workers"] for row in every) + 0.6], "workers")
    x["axis"] |= {"values": sorted({row["workers"] for row in every})}
    y = _y("messages_per_s", most * 1.05, "messages per second")
    middle = {"x": x, "y": y | {"aggregate": "median"}}
    ideal = _line("soft") | {"strokeDash": [5, 4]}
    text = {"type": "text", "dy": 16, "color": "var(--text)", "fontSize": 11}
    return _drawing(
        190, rows,
        _layer(ideal, {"x": x, "y": y | {"field": "ideal_per_s", "aggregate": "median"}}),
        _layer(_line("series1") | {"strokeWidth": 2}, middle),
        _layer({"type": "point", "filled": True, "size": 50, "opacity": 1}
               | {"color": "var(--series1)"}, {"x": x, "y": y}),
        _layer(text, {"x": x, "y": y, "text": {"field": "busy"}},
               "datum.busy_workers < datum.workers && datum.repetition == 1"),
    )  # fmt: skip


_KINDS: Mapping[ChartKind, Callable[[list[Row], list[Row]], Spec]] = {
    "order": _order,
    "crash": _crash,
    "copies": _copies,
    "offsets": _offsets,
    "poison": _poison,
    "backlog": _backlog,
    "scaling": _scaling,
}

#: The look of every chart, that of the documentation too.
CONFIG: Spec = {
    "aria": False,
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--text)", "titleColor": "var(--soft)", "titleFontWeight": "normal",
        "labelFontSize": 12, "titleFontSize": 12, "gridColor": "var(--line)",
        "domainColor": "var(--faint)", "tickColor": "var(--faint)",
    },
}  # fmt: skip


def _rows(chart: Chart) -> list[Row]:
    names = [field.name for field in chart.fields]
    return [dict(zip(names, row, strict=True)) for row in chart.rows]


def _drawing(height: int, rows: list[Row], *layers: Spec) -> Spec:
    return {"height": height, "data": {"values": rows}, "layer": [*layers]}


def _layer(mark: Spec, encoding: Spec, keep: str = "true") -> Spec:
    return {"mark": mark, "encoding": encoding, "transform": [{"filter": keep}]}


def _line(colour: str) -> Spec:
    return {"type": "line", "color": f"var(--{colour})", "strokeWidth": 1.6}


def _coloured(colour: str) -> Spec:
    return {"color": f"var(--{colour})", "stroke": f"var(--{colour})"}


def _x(field: str, domain: Iterable[Cell], title: str, kind: str = "quantitative") -> Spec:
    return {
        "field": field,
        "type": kind,
        "scale": {"domain": list(domain), "nice": False, "zero": False},
        "axis": {"title": title, "grid": False, "tickCount": 6, "labelFlush": False},
    }


def _seconds(field: str, domain_ms: Sequence[float], title: str) -> Spec:
    """An axis in seconds of a field in milliseconds: ``labelExpr`` divides."""
    place = _x(field, domain_ms, title)
    place["axis"] |= {"labelExpr": "datum.value / 1000"}
    return place


def _y(field: str, largest: float, title: str) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"domain": [0, largest], "nice": False},
        "axis": {"title": title, "tickCount": 4},
    }
