"""Backends that are installed: listed from metadata without import, loaded by name through pluggy.

A distribution offers a backend with an entry point of the group ``gearshift.backends``: its name is
the backend's, its value the module with the hook ``gearshift_backend``. So do the built-in ones.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from typing import Any

import pluggy

from gearshift._core.entry_points import PluginEntry, broken, choose, import_entry, installed
from gearshift.driver import DRIVER_API, BackendPlugin
from gearshift.driver import plugin as hookspecs
from gearshift.errors import BackendNotFound, ConfigError, PluginError, PluginIncompatible

__all__ = [
    "GROUP", "PluginEntry", "PluginStatus", "available", "describe", "load", "profile_for_url",
]  # fmt: skip

GROUP = "gearshift.backends"


@dataclass(frozen=True, slots=True)
class PluginStatus(PluginEntry):
    """An installed backend after trying to load it: ``plugin``, or the ``error`` instead."""

    plugin: BackendPlugin | None = None
    error: PluginError | None = None


def available() -> list[PluginEntry]:
    """Every installed backend, by name, from metadata alone. Reads disk; imports nothing."""
    return installed(GROUP)


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


def profile_for_url(url: str) -> dict[str, Any]:
    """The profile for a broker at ``url``, its ``backend`` included.

    Loads every installed backend to ask for its schemes. Raises ConfigError.
    """
    scheme = url.partition("://")[0].lower()
    found = describe()
    known = {name: status.plugin for status in found if status.plugin
             for name in status.plugin.url_schemes}  # fmt: skip
    if plugin := known.get(scheme):
        return {"backend": plugin.name, **plugin.url_schemes[scheme](url)}
    packages = _not_installed(found) or ["gearshift-NAME"]
    if f"gearshift-{scheme}" in packages:
        packages = [f"gearshift-{scheme}"]
    broken = "".join(f"; {status.error.message}" for status in found if status.error)
    raise ConfigError(
        f"no installed backend takes a URL with the scheme {scheme!r}",
        hint=f"known: {', '.join(f'{name}://' for name in sorted(known))}; other brokers: "
        f"pip install {' or '.join(packages)}{broken}",
    )


def _not_installed(found: Sequence[PluginStatus]) -> list[str]:
    """The backends' distributions that Gearshift's own metadata names and that are missing."""
    named = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in requires("gearshift") or ()}
    there = {status.distribution for status in found}
    return sorted(name for name in named - there if name.startswith("gearshift-"))


def _status(entry: PluginEntry, entries: list[PluginEntry]) -> PluginStatus:
    known = (entry.name, entry.distribution, entry.version, entry.module, entry.group)
    try:
        return PluginStatus(*known, plugin=_load(entry.name, entries))
    except PluginError as error:
        return PluginStatus(*known, error=error)


def _load(name: str, entries: list[PluginEntry]) -> BackendPlugin:
    entry = _find(name, entries)
    return _checked(_call_hook(entry, import_entry(entry)), entry)


def _find(name: str, entries: list[PluginEntry]) -> PluginEntry:
    found = choose(name, entries)
    if found is not None:
        return found
    names = sorted({entry.name for entry in entries})
    # No install command for what looks like a misspelling: that is how typosquatters live.
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"pip install gearshift-{name}"
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):  # nothing that a shell would read as more
        hint = "a backend's name has letters, digits, '_' and '-'"
    what = f"backend {name!r} is not installed (installed: {', '.join(names) or 'none'})"
    raise BackendNotFound(what, hint=hint)


def _call_hook(entry: PluginEntry, module: object) -> object:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name=entry.name)
        return manager.hook.gearshift_backend()  # None if the module has no such hook
    except Exception as cause:
        raise broken(entry, f"its hook failed: {type(cause).__name__}: {cause}") from cause


def _checked(plugin: object, entry: PluginEntry) -> BackendPlugin:
    """Return ``plugin`` if it is what the contract asks for under this name, else raise."""
    if plugin is None:
        raise broken(entry, f"{entry.module} has no hook gearshift_backend marked with hookimpl")
    if not isinstance(plugin, BackendPlugin):
        raise broken(entry, f"its hook returned {type(plugin).__name__}, not a BackendPlugin")
    if plugin.driver_api != DRIVER_API:
        what = f"written for driver API {plugin.driver_api}, this Gearshift has {DRIVER_API}"
        raise broken(entry, what, PluginIncompatible)
    if plugin.name != entry.name:
        raise broken(entry, f"it calls itself {plugin.name!r}")
    if plugin.wrap is None and plugin.default_semantics not in plugin.capabilities:
        raise broken(
            entry,
            f"it declares no capabilities for its default semantics {plugin.default_semantics!r}",
        )
    return plugin
