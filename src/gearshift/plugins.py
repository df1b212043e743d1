"""Backends that are installed: listed from metadata without import, loaded by name through pluggy.

A distribution offers a backend with an entry point of the group ``gearshift.backends``: its name is
the backend's, its value the module with the hook ``gearshift_backend``. So do the built-in ones.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import pluggy

from gearshift import hookspecs
from gearshift.driver import DRIVER_API, BackendPlugin
from gearshift.errors import (
    BackendNotFound,
    PluginConflict,
    PluginError,
    PluginImportError,
    PluginIncompatible,
)

__all__ = ["GROUP", "PluginEntry", "PluginStatus", "available", "describe", "load"]

GROUP = "gearshift.backends"


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """One installed entry point. ``module`` is its value; nothing has imported it yet."""

    name: str
    distribution: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, slots=True)
class PluginStatus(PluginEntry):
    """An installed backend after trying to load it: ``plugin``, or the ``error`` instead."""

    plugin: BackendPlugin | None = None
    error: PluginError | None = None


def available() -> list[PluginEntry]:
    """Every installed backend, by name, from metadata alone. Reads disk; imports nothing."""
    entries = [
        PluginEntry(
            name=point.name,
            distribution=point.dist.name if point.dist else "unknown",
            version=point.dist.version if point.dist else "unknown",
            module=point.value,
        )
        for point in entry_points(group=GROUP)
    ]
    return sorted(entries, key=lambda entry: (entry.name, entry.distribution))


def load(name: str) -> BackendPlugin:
    """Import the one backend called ``name`` and return what its hook gives.

    Raises BackendNotFound, PluginConflict, PluginImportError (``__cause__`` is what the import
    raised), PluginIncompatible, PluginError (other faults). It does not disturb the others.
    """
    return _load(name, available())


def describe() -> list[PluginStatus]:
    """Load every installed backend and say what it offers, or why it cannot be used."""
    entries = available()
    return [_status(entry, entries) for entry in entries]


def _status(entry: PluginEntry, entries: list[PluginEntry]) -> PluginStatus:
    known = (entry.name, entry.distribution, entry.version, entry.module)
    try:
        return PluginStatus(*known, plugin=_load(entry.name, entries))
    except PluginError as error:
        return PluginStatus(*known, error=error)


def _load(name: str, entries: list[PluginEntry]) -> BackendPlugin:
    entry = _find(name, entries)
    return _checked(_call_hook(entry, _import(entry)), entry)


def _find(name: str, entries: list[PluginEntry]) -> PluginEntry:
    found = [entry for entry in entries if entry.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise PluginConflict(
            f"backend {name!r} is offered by " + " and by ".join(map(str, found)),
            hint="uninstall all but one of them",
        )
    installed = sorted({entry.name for entry in entries})
    # No install command for what looks like a misspelling: that is how typosquatters live.
    close = difflib.get_close_matches(name, installed, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"pip install gearshift-{name}"
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):  # nothing that a shell would read as more
        hint = "a backend's name has letters, digits, '_' and '-'"
    what = f"backend {name!r} is not installed (installed: {', '.join(installed) or 'none'})"
    raise BackendNotFound(what, hint=hint)


def _import(entry: PluginEntry) -> object:
    try:
        return EntryPoint(entry.name, entry.module, GROUP).load()
    except (Exception, SystemExit) as cause:
        what = f"importing {entry.module} failed: {type(cause).__name__}: {cause}"
        raise _broken(entry, what, PluginImportError) from cause


def _call_hook(entry: PluginEntry, module: object) -> object:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name=entry.name)
        return manager.hook.gearshift_backend()  # None if the module has no such hook
    except Exception as cause:
        raise _broken(entry, f"its hook failed: {type(cause).__name__}: {cause}") from cause


def _checked(plugin: object, entry: PluginEntry) -> BackendPlugin:
    """Return ``plugin`` if it is what the contract asks for under this name, else raise."""
    if plugin is None:
        raise _broken(entry, f"{entry.module} has no hook gearshift_backend marked with hookimpl")
    if not isinstance(plugin, BackendPlugin):
        raise _broken(entry, f"its hook returned {type(plugin).__name__}, not a BackendPlugin")
    if plugin.driver_api != DRIVER_API:
        what = f"written for driver API {plugin.driver_api}, this Gearshift has {DRIVER_API}"
        raise _broken(entry, what, PluginIncompatible)
    if plugin.name != entry.name:
        raise _broken(entry, f"it calls itself {plugin.name!r}")
    if plugin.natural not in plugin.capabilities:
        raise _broken(entry, f"it declares no capabilities for its natural {plugin.natural!r}")
    return plugin


def _broken(entry: PluginEntry, what: str, kind: type[PluginError] = PluginError) -> PluginError:
    hint = f"install another version of {entry.distribution}, or tell its author"
    return kind(f"backend {entry.name!r} of {entry}: {what}", hint=hint)
