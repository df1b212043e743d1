"""The profiles of a document: which of them is selected, what it says, and what it stands over."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from gearshift import plugins
from gearshift.config import overrides
from gearshift.config.document import MISSING, Document, Keys
from gearshift.config.errors import unknown
from gearshift.config.expansion import expand
from gearshift.config.masking import Redactor
from gearshift.config.model import Profile
from gearshift.errors import ConfigError

__all__ = ["add_built_in", "all_profiles", "expanded", "profile_below", "select"]

DEFAULT_PROFILE = "embedded"

#: What there is without any file: a profile that needs no server.
_BUILT_IN: Mapping[str, Any] = {"backend": "sqlite", "path": ".gearshift/gearshift.db"}


def add_built_in(document: Document) -> None:
    """Add the profile that there is without any file, unless the document has one of its name."""
    if DEFAULT_PROFILE not in document.tree["profiles"]:
        document.tree["profiles"][DEFAULT_PROFILE] = dict(_BUILT_IN)
        document.origins["profiles", DEFAULT_PROFILE] = "default"


def all_profiles(document: Document) -> dict[str, Profile]:
    """Every profile, with its backend as it is written. Raises ConfigError."""
    profiles = {}
    for name, table in document.tree["profiles"].items():
        keys: Keys = ("profiles", name, "backend")
        backend = table.get("backend", MISSING)
        if backend is MISSING:
            close = difflib.get_close_matches("backend", table, n=1)
            meant = f"did you mean {close[0]!r} to be it? " if close else ""
            raise document.problem(keys, "is missing", hint=f'{meant}add backend = "..."')
        if not isinstance(backend, str) or not backend.strip():
            raise document.problem(keys, "expected a backend's name in quotes")
        profiles[name] = Profile(name, backend)
    return profiles


def select(
    document: Document, argument: str | None, environ: Mapping[str, str], in_file: list[str]
) -> tuple[str, str]:
    """The selected profile's name and where it was selected."""
    name, origin = argument, "argument"
    if name is None and environ.get(overrides.PROFILE):
        name, origin = environ[overrides.PROFILE], f"environment {overrides.PROFILE}"
    if name is None and "profile" in document.tree:
        name, origin = document.tree["profile"], document.origin(("profile",))
        if not isinstance(name, str) or not name:
            raise document.problem(("profile",), "expected a profile's name in quotes")
    if name is None:
        return _only(document, in_file)
    if name not in document.tree["profiles"]:
        what, hint = unknown(name, document.tree["profiles"], "profile")
        raise ConfigError(f"{origin}: {what}", hint=hint)
    return name, origin


def _only(document: Document, in_file: list[str]) -> tuple[str, str]:
    if len(in_file) > 1:
        raise ConfigError(
            f"{document.label}: no profile is selected",
            hint=f'add profile = "..." or set {overrides.PROFILE}; it has {", ".join(in_file)}',
        )
    # Never the built-in one beside the file's own: messages would go where nobody looks.
    return (
        (in_file[0], f"only one in {document.label}") if in_file else (DEFAULT_PROFILE, "default")
    )


def expanded(
    document: Document, profile: Profile, environ: Mapping[str, str], secrets: Redactor
) -> dict[str, Any]:
    """A profile's table with references replaced; ``secrets`` learns those in it."""
    keys: Keys = ("profiles", profile.name)
    written = {key: value for key, value in document.get(keys).items() if key != "backend"}
    table: dict[str, Any] = expand(written, keys, document, environ, secrets)
    secrets.learn_from(table)
    # Apart, because a backend's name is not a secret: else it would be cut out of every error.
    keys = (*keys, "backend")
    table["backend"] = expand(profile.backend, keys, document, environ, Redactor())
    if table["backend"] != profile.backend:  # else plugins.load says it, with the name
        installed = {entry.name for entry in plugins.available()}
        if table["backend"] not in installed:
            what = "the variable does not name an installed backend"
            raise document.problem(keys, what, hint=f"installed: {', '.join(sorted(installed))}")
    return table


def profile_below(
    document: Document, name: str, table: Mapping[str, Any], profiles: Mapping[str, Profile]
) -> str | None:
    """The profile that ``name``, which has this table, stands over; None if it does not."""
    over = table.get("over", MISSING)
    if over is MISSING:
        return None
    keys: Keys = ("profiles", name, "over")
    if not isinstance(over, str) or not over:
        raise document.problem(keys, "expected a profile's name in quotes")
    others = [other for other in profiles if other != name]
    if over == name:
        what, hint = "is the profile itself", f"name another one: {', '.join(others)}"
        raise document.problem(keys, what, hint=hint)
    if over not in profiles:
        what, hint = unknown(over, others, "profile")
        raise document.problem(keys, what, hint=hint)
    if document.get(("profiles", over, "over")) is not MISSING:
        what = "stands over another profile itself"
        raise document.problem(keys, what, hint="name that other profile")
    return over
