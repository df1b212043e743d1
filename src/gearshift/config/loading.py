"""``load``: find the file, merge the environment, check everything that needs no backend."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gearshift.config import overrides
from gearshift.config.channels import ChannelSettings
from gearshift.config.conversion import convert
from gearshift.config.document import Document, Keys, copied, locate, read
from gearshift.config.errors import unknown
from gearshift.config.expansion import Unset
from gearshift.config.masking import Redactor
from gearshift.config.model import Config, Profile
from gearshift.config.profiles import (
    add_built_in,
    all_profiles,
    expanded,
    profile_below,
    select,
)
from gearshift.errors import ConfigError, UsageError
from gearshift.validation import validate_name

__all__ = ["load", "rehearsal_file", "with_channels", "with_profile"]

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
    add_built_in(document)
    overrides.apply(document, environ, ChannelSettings.__struct_fields__)
    _check_tables(document)
    profiles = all_profiles(document)
    channels = _channels(document, profiles)
    name, origin = select(document, profile, environ, in_file)
    secrets = Redactor()
    table = expanded(document, profiles[name], environ, secrets)
    profiles[name] = Profile(name, table.pop("backend"))
    below = profile_below(document, name, table, profiles)
    if below is not None:
        table_below = expanded(document, profiles[below], environ, secrets)
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
