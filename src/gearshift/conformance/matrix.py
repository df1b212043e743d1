"""The results of a run as a matrix: nothing left out, nothing counted twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path

import msgspec

from gearshift.conformance.behaviour import Behaviour
from gearshift.conformance.execution import Result, Status

__all__ = ["BackendResults", "Matrix", "manifest", "manifest_of", "markdown_table"]

#: From best to worst, for a capability that several behaviours prove.
_RANK = list(Status)


@dataclass(slots=True)
class BackendResults:
    """One backend and semantics: its results by behaviour, what server answered and when."""

    label: str
    server: str = ""
    day: str = ""
    capabilities: dict[str, bool | str | int] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Behaviours of the manifest that were not run at all."""
        return [name for name in manifest() if name not in self.results]

    def failures(self) -> list[Result]:
        """Results that failed or proved nothing."""
        return [result for result in self.results.values() if result.status.is_failure]

    @property
    def badge(self) -> str:
        """ "conformant": all of the manifest; "functional": all but faults; "partial"; "failed"."""
        if self.failures():
            return "failed"
        if self.missing():
            return "partial"
        not_run = any(result.status is Status.NOT_RUN for result in self.results.values())
        return "functional" if not_run else "conformant"

    def status_of(self, capability: str) -> Status | None:
        """The worst status of the behaviours that prove ``capability``."""
        found = [r.status for r in self.results.values() if r.capability == capability]
        return max(found, key=_RANK.index) if found else None


@dataclass(slots=True)
class Matrix:
    """Columns by label, in the order in which they were run."""

    columns: dict[str, BackendResults] = field(default_factory=dict)

    def column(self, label: str) -> BackendResults:
        """The column called ``label``, made if need be."""
        return self.columns.setdefault(label, BackendResults(label))

    def add(self, part: BackendResults) -> None:
        """Take over the results of ``part``."""
        self.columns.setdefault(part.label, part).results |= part.results

    def save(self, file: Path) -> None:
        """Write ``file`` as JSON, beside what other runs left there for other columns."""
        kept = Matrix.load(file).columns if file.exists() else {}
        merged = kept | self.columns
        document = {"columns": [asdict(column) for column in merged.values()]}
        file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")

    @staticmethod
    def load(file: Path) -> Matrix:
        """Read what ``save`` wrote."""
        document = msgspec.json.decode(file.read_bytes(), type=dict[str, list[BackendResults]])
        return Matrix({column.label: column for column in document["columns"]})

    def markdown(self, suite: Sequence[Behaviour]) -> str:
        """Three tables: the columns, then their capabilities and their behaviours.

        In the last two, columns that say the same throughout are one.
        """
        columns = list(self.columns.values())
        runs = [[column.label, column.server, column.day, column.badge] for column in columns]
        names = list(columns[0].capabilities) if columns else []
        claims = {c.label: [_claim(c, name) for name in names] for c in columns}
        titles = [f"{b.area}: {b.name.replace('_', ' ')}" for b in suite]
        cells = {c.label: [_cell(c.results.get(b.name)) for b in suite] for c in columns}
        return "\n\n".join(
            [
                "## Columns\n\n" + markdown_table([["column", "server", "day", "badge"], *runs]),
                "## Capabilities\n\n" + _side_by_side(names, claims),
                "## Behaviours\n\n" + _side_by_side(titles, cells),
            ]
        )


def manifest() -> list[str]:
    """Names of the behaviours that must be run, of the list that ships with the kit.

    A run that leaves one out is not complete.
    """
    text = resources.files("gearshift.conformance").joinpath("manifest.txt").read_text()
    return [line.split()[0] for line in text.splitlines() if line and line[0] != "#"]


def manifest_of(suite: Sequence[Behaviour]) -> str:
    """The text of the file for ``suite``."""
    lines = [f"{b.name} {b.area} {b.capability or '-'}" for b in suite]
    return "# behaviour, area, capability that it proves\n" + "\n".join(lines) + "\n"


def _side_by_side(titles: Sequence[str], columns: Mapping[str, Sequence[str]]) -> str:
    """A table of ``columns`` by their labels, the same ones together."""
    labels: dict[tuple[str, ...], list[str]] = {}
    for label, cells in columns.items():
        labels.setdefault(tuple(cells), []).append(label)
    rows = zip(titles, *labels, strict=True)
    return markdown_table([["", *map("<br>".join, labels.values())], *map(list, rows)])


def _claim(column: BackendResults, capability: str) -> str:
    value, status = column.capabilities.get(capability), column.status_of(capability)
    word = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    return f"{word}: {status or 'not proved'}"


def _cell(result: Result | None) -> str:
    if result is None:
        return "missing"
    if result.status is Status.KNOWN_FAILURE:
        return f"known-failure: {result.text}"
    return str(result.status)


def markdown_table(rows: list[list[str]]) -> str:
    """``rows``, of which the first are the headings."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])
