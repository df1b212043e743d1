"""Entry points of other distributions: listed without import, one imported by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from gearshift.errors import PluginConflict, PluginError, PluginImportError

__all__ = ["PluginEntry", "broken", "choose", "import_entry", "installed"]


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """One installed entry point. ``module`` is its value; nothing has imported it yet."""

    name: str
    distribution: str
    version: str
    module: str
    group: str = "gearshift.backends"

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def noun(self) -> str:
        """The kind of thing it offers: ``backend`` for the group ``gearshift.backends``."""
        return self.group.rpartition(".")[2].removesuffix("s")


def installed(group: str) -> list[PluginEntry]:
    """Every entry point of ``group``, by name, from metadata alone. Reads disk; imports nothing."""
    entries = [
        PluginEntry(
            name=point.name,
            distribution=point.dist.name if point.dist else "unknown",
            version=point.dist.version if point.dist else "unknown",
            module=point.value,
            group=group,
        )
        for point in entry_points(group=group)
    ]
    return sorted(entries, key=lambda entry: (entry.name, entry.distribution))


def choose(name: str, entries: Sequence[PluginEntry]) -> PluginEntry | None:
    """The one entry called ``name``, None if there is none. Raises PluginConflict."""
    found = [entry for entry in entries if entry.name == name]
    if len(found) > 1:
        raise PluginConflict(
            f"{found[0].noun} {name!r} is offered by " + " and by ".join(map(str, found)),
            hint="uninstall all but one of them",
        )
    return found[0] if found else None


def import_entry(entry: PluginEntry) -> object:
    """Import what ``entry`` names. Raises PluginImportError with its cause."""
    try:
        return EntryPoint(entry.name, entry.module, entry.group).load()
    except (Exception, SystemExit) as cause:
        what = f"importing {entry.module} failed: {type(cause).__name__}: {cause}"
        raise broken(entry, what, PluginImportError) from cause


def broken(entry: PluginEntry, what: str, kind: type[PluginError] = PluginError) -> PluginError:
    """The error for an entry that cannot be used."""
    hint = f"install another version of {entry.distribution}, or tell its author"
    return kind(f"{entry.noun} {entry.name!r} of {entry}: {what}", hint=hint)
