"""The documents of the project, and what they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*/README.md")]
    if ".venv" not in path.parts and "changelog.d" not in path.parts
)

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Snippet(NamedTuple):
    """A fenced block: its language, its text, and where it stands."""

    language: str
    text: str
    place: str


def snippets_of(path: Path) -> Iterator[Snippet]:
    """The fenced blocks of a document."""
    text = path.read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Snippet(found[1], found[2], f"{path.relative_to(ROOT)}:{line}")


def prose_of(path: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", path.read_text())
