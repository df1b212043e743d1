"""``load``: find the file, merge the environment, check everything that needs no backend."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gearshift import plugins
from gearshift.config import overrides
from gearshift.config.channels import ChannelSettings
from gearshift.config.conversion import convert
from gearshift.config.document import MISSING, Document, Keys, copied, locate, read
from gearshift.config.errors import unknown
from gearshift.config.expansion import Unset, expand
from gearshift.config.masking import Redactor
from gearshift.config.model import Config, Profile
from gearshift.errors import ConfigError, UsageError
from gearshift.validation import validate_name

__all__ = ["DEFAULT_PROFILE", "load", "rehearsal_file", "with_channels", "with_profile"]

DEFAULT_PROFILE = "embedded"

#: What there is without any file: a profile that needs no server.
_BUILT_IN: Mapping[str, Any] = {"backend": "sqlite", "path": ".gearshift/gearshift.db"}

_SECTIONS = ("profile", "profiles", "channels")


def load(
    path: str | Path | None = None,
    *,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Config:
    """Read the configuration. Blocks for the file only.

    The file is ``path``, else what ``GEARSHIFT_CONFIG`` names, else the nearest ``gearshift.toml``
    in ``directory`` (the current one) or above it, else none: then the profile is ``embedded``, a
    SQLite file in ``.gearshift``. The profile is the argument, else ``GEARSHIFT_PROFILE``, else the
    file's ``profile``, else its only one. ``settings``, a mapping of the same form, takes the place
    of a file. ``environ`` stands for ``os.environ`` in tests.

    Raises UsageError for arguments that exclude one another or have the wrong type, and
    ConfigError for whatever is wrong, except in the tables of profiles that are not
    selected and in what only a backend can check: that comes with ``Config.settings_for``.
    """
    environ = os.environ if environ is None else environ
    document = _document(path, settings, environ, directory)
    with document.masking():
        return _loaded(document, profile, environ)


def _loaded(document: Document, profile: str | None, environ: Mapping[str, str]) -> Config:
    _check_sections(document)
    in_file = list(document.tree["profiles"])
    _add_built_in(document)
    overrides.apply(document, environ, ChannelSettings.__struct_fields__)
    _check_tables(document)
    profiles = _profiles(document)
    channels = _channels(document, profiles)
    name, origin = _select(document, profile, environ, in_file)
    secrets = Redactor()
    table = _selected(document, profiles[name], environ, secrets)
    profiles[name] = Profile(name, table.pop("backend"))
    below = _below(document, name, table, profiles)
    if below is not None:
        table_below = _selected(document, profiles[below], environ, secrets)
        profiles[below] = Profile(below, table_below.pop("backend"))
    config = Config(
        profile=name,
        profiles=MappingProxyType(profiles),
        channels=MappingProxyType(channels),
        file=document.file,
        profile_origin=origin,
        rehearsal=rehearsal_file(environ),
        unset=frozenset(environ.names) if isinstance(environ, Unset) else frozenset(),
        _document=document,
        _table=MappingProxyType(table),
        _secrets=secrets,
    )
    if below is None:
        return config
    over = replace(config, profile=below, _table=MappingProxyType(table_below))
    return replace(config, over=over)


def with_channels(config: Config, channels: Mapping[str, Mapping[str, Any]]) -> Config:
    """``config`` with other channels: ``channels`` is what stands below ``[channels]`` in TOML.

    Raises ConfigError.
    """
    document = replace(config._document, tree={**config._document.tree, "channels": dict(channels)})
    _check_tables(document)
    found = _channels(document, config.profiles)
    return replace(config, channels=MappingProxyType(found), _document=document)


def with_profile(config: Config, name: str, backend: str) -> Config:
    """``config`` with the same channels and another profile, selected: ``backend``'s defaults."""
    tree = config._document.tree
    profiles = {**tree["profiles"], name: {"backend": backend}}
    return replace(
        config,
        profile=name,
        profiles=MappingProxyType({**config.profiles, name: Profile(name, backend)}),
        profile_origin="argument",
        over=None,
        _document=replace(config._document, tree={**tree, "profiles": profiles}),
        _table=MappingProxyType({}),
    )


def rehearsal_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The file for what a rehearsal sends (see ``gearshift.rehearsal``); None outside of one."""
    file = (os.environ if environ is None else environ).get(overrides.REHEARSAL)
    return Path(file) if file else None


# ── The file ─────────────────────────────────────────────────────────────────────────────────────


def _document(
    path: str | Path | None,
    settings: Mapping[str, Any] | None,
    environ: Mapping[str, str],
    directory: Path | None,
) -> Document:
    here = (directory or _current()).absolute()
    if settings is not None:
        if path is not None:
            raise UsageError("a file and settings exclude one another")
        if not isinstance(settings, Mapping):
            raise UsageError(
                f"settings is a mapping, not {type(settings).__name__}",
                hint='settings={"profiles": {"dev": {"backend": "sqlite"}}}',
            )
        return Document(label="settings", folder=here, tree=copied(settings))
    named = path or environ.get(overrides.CONFIG)  # set to nothing counts as not set
    if named:
        return read(here / named, str(named))
    file = locate(here)
    if file is None:
        return Document(label="defaults", folder=here)
    return read(file, file.name if file.parent == here else str(file))


def _current() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(f"the current directory cannot be read: {error.strerror}") from None


def _check_sections(document: Document) -> None:
    for key in document.tree:
        if key not in _SECTIONS:
            what, hint = unknown(key, _SECTIONS, "section")
            raise document.problem((key,), what, hint=hint)
    for section in ("profiles", "channels"):
        table = document.tree.setdefault(section, {})
        if not isinstance(table, dict):
            raise document.problem((section,), "expected a table", hint=f"write [{section}.NAME]")


def _add_built_in(document: Document) -> None:
    if DEFAULT_PROFILE not in document.tree["profiles"]:
        document.tree["profiles"][DEFAULT_PROFILE] = dict(_BUILT_IN)
        document.origins["profiles", DEFAULT_PROFILE] = "default"


def _check_tables(document: Document) -> None:
    """Profiles and channels are tables under usable names."""
    for section in ("profiles", "channels"):
        for name, table in document.tree[section].items():
            keys: Keys = (section, name)
            if not isinstance(table, dict):
                hint = f"write [{section}.{name}] and the settings below it"
                raise document.problem(keys, "expected a table", hint=hint)
            _check_name(document, keys, name)


def _check_name(document: Document, keys: Keys, name: str) -> None:
    try:
        validate_name(name, "name")
        return
    except ValueError as error:
        what, hint = getattr(error, "message", str(error)), getattr(error, "hint", None)
    raise document.problem(keys, what, hint=hint)


# ── Profiles ─────────────────────────────────────────────────────────────────────────────────────


def _profiles(document: Document) -> dict[str, Profile]:
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


def _select(
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


def _selected(
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


def _below(
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


# ── Channels ─────────────────────────────────────────────────────────────────────────────────────


def _channels(document: Document, profiles: Mapping[str, Profile]) -> dict[str, ChannelSettings]:
    channels: dict[str, ChannelSettings] = {}
    for name in document.tree["channels"]:
        keys: Keys = ("channels", name)
        channels[name] = convert(
            document.get(keys), ChannelSettings, keys=keys, document=document, secrets=Redactor()
        )
        _check_native(document, keys, channels[name], profiles)
    for name in channels:
        _check_dead_letters(document, name, channels)
    return channels


def _check_native(
    document: Document, keys: Keys, settings: ChannelSettings, profiles: Mapping[str, Profile]
) -> None:
    """Refuse a native table for what is probably a misspelt backend; it would be ignored."""
    backends = {profile.backend for profile in profiles.values()}
    for backend in settings.native.keys() - backends:
        if close := difflib.get_close_matches(backend, backends, n=1):
            raise document.problem(
                (*keys, "native", backend),
                "no profile has this backend",
                hint=f"did you mean {close[0]!r}?",
            )


def _check_dead_letters(
    document: Document, name: str, channels: Mapping[str, ChannelSettings]
) -> None:
    """A message that is given up must not come round to the channel that gave it up."""
    keys: Keys = ("channels", name, "dead_letter")
    route = [name]
    while (settings := channels.get(route[-1])) and isinstance(settings.dead_letter, str):
        route.append(settings.dead_letter)
        if route[-1] == name:
            via = (
                "is the channel itself" if len(route) == 2 else "leads back: " + " -> ".join(route)
            )
            raise document.problem(keys, via, hint="name another channel, or false for none")
        if route[-1] in route[:-1]:
            return  # a ring that this channel only leads into; its members report it
    if (target := channels[name].dead_letter_name(name)) is not None:
        _check_name(document, keys, target)
