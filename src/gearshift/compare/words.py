"""Words for people: numbers with units that are read, lists, templates that are filled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gearshift.compare.findings import Number

__all__ = ["filled", "listed", "measured", "sentence", "several"]

_PLACE = re.compile(r"\{([^{}:]+)(:unit)?\}")
_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def measured(value: float | None, unit: str = "") -> str:
    """``value`` as people say it: "5.8 s", "1 message", "93 %"; "n/a" for None."""
    if value is None:
        return "n/a"
    if unit == "ms":
        return f"{_rounded(value / 1000)} s"
    if unit == "%":
        return f"{value:.0f} %"
    if unit.endswith("/s"):
        return f"{_rounded(value)} {unit}"
    text = f"{value:,.1f}".removesuffix(".0")
    if value == 1 and unit.endswith("ies"):
        unit = unit.removesuffix("ies") + "y"
    elif value == 1:
        unit = unit.removesuffix("s")
    return f"{text} {unit}".strip()


def _rounded(value: float) -> str:
    """Two digits that count, or every one before the point."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.01 else f"{value:.3f}"


def filled(template: str, numbers: Iterable[Number]) -> str:
    """``template`` with ``{name}`` and ``{name:unit}`` replaced by the numbers' medians."""
    known = {number.name: number for number in numbers}

    def written(found: re.Match[str]) -> str:
        number = known.get(found[1])
        if number is None or number.median is None:
            return "an unknown number"
        text = measured(number.median, number.unit)
        return text if found[2] else text.partition(" ")[0]

    return _PLACE.sub(written, template)


def listed(names: Sequence[str], word: str = "and") -> str:
    """The names as a sentence lists them: "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


def several(count: int, name: str) -> str:
    """All of ``count`` things: "the queue", "both queues", "all three queues", "all four"."""
    if count == 1:
        return f"the {name}"
    if count == 2:
        return f"both {name}s"
    number = _COUNTS[count - 2] if count < 11 else str(count)
    return f"all {number} {name}s" if name else f"all {number}"


def sentence(text: str) -> str:
    """``text`` with a capital at its beginning, unless that is a column, and a full stop."""
    first = text.partition(" ")[0]
    capital = text if ":" in first.strip(":") else text[:1].upper() + text[1:]
    return capital + ("" if text.endswith((".", "?", "!")) else ".")
