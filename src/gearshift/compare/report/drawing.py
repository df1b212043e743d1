"""Draws Vega-Lite specifications as SVG that stands in a page, with a title and a description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from gearshift.extras import importing

with importing("compare"):
    import vl_convert

__all__ = ["draw"]

#: The release of Vega-Lite that draws; it is part of vl-convert, so nothing is loaded.
_VEGA_LITE = "6.4"

#: What Vega writes for its own scripts, and what draws nothing.
_UNUSED = re.compile(
    r'<path class="(?:background|foreground)"[^>]*d="(?:M0,0h0v0h0Z)?"[^>]*/>'
    r'| (?:class|role|aria-[a-z]+|pointer-events|font-family)="[^"]*"'
    r'| (?:opacity="1"|stroke-width="1"|font-weight="normal")|<g></g>'
)
_OPENING = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def draw(specification: Mapping[str, Any], name: str, title: str, description: str) -> str:
    """The drawing as an ``svg`` element called ``name``; the same arguments give the same text.

    Takes most of a second the first time, some hundredths of one from then on.
    """
    drawn = vl_convert.vegalite_to_svg(
        dict(specification), vl_version=_VEGA_LITE, allowed_base_urls=[]
    )
    opening = _OPENING.match(drawn)
    assert opening is not None, drawn[:200]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {opening[1]} {opening[2]}" '
        f'role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(description)}</desc>' + _shorter(drawn[opening.end() :])
    )


def _shorter(drawn: str) -> str:
    before = ""
    while drawn != before:
        before, drawn = drawn, _UNUSED.sub("", drawn)
    return drawn
