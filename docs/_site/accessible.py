"""What Sphinx and Furo leave out for those who do not see or point; axe finds nothing after it."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

_MENDED = {
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<aside class="sidebar-drawer"': '<aside aria-label="All pages" class="sidebar-drawer"',
    '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer',
    '<th class="head"><p></p></th>': "<td></td>",
    '<th class="head"></th>': "<td></td>",
    '<div id="search-results">': '<h1>Search</h1><div id="search-results">',
    # What may be wider than the page is scrolled by keys as well.
    "<pre>": '<pre tabindex="0">',
    '<table class="docutils': '<table tabindex="0" class="docutils',
}

#: A signature of several lines: definitions without terms, and so a list.
_PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*?</dd>\n)+)</dl>", re.DOTALL)


def _listed(found: re.Match[str]) -> str:
    items = found[1].replace("<dd>", "<li>").replace("</dd>", "</li>")
    return f'<ul class="parameters">\n{items}</ul>'


def _mend(app: Sphinx, error: Exception | None) -> None:
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text()
        for found, mended in _MENDED.items():
            text = text.replace(found, mended)
        page.write_text(_PARAMETERS.sub(_listed, text))


def setup(app: Sphinx) -> dict[str, bool]:
    """Mend what was written, once."""
    app.connect("build-finished", _mend)
    return {"parallel_read_safe": True}
