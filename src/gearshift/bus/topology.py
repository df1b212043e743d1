"""Channels and groups that must exist before use, and who may create them.

A channel that the configuration lists is created when it is first opened. One that it does not
list must exist already, or the caller says ``create=True``: a misspelt name would otherwise become
a channel that nobody reads. Where no channel is listed at all, any may be created.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace

from gearshift.capabilities import Capabilities, Requirement
from gearshift.config import ChannelSettings, Config
from gearshift.driver import AdminDriver, BackendPlugin, ChannelSpec
from gearshift.errors import NotSupported, UnknownChannel, UnknownGroup
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift.validation import validate_name

__all__ = ["Topology"]


class Topology:
    """Channels of one configuration on one backend. Any thread; holds no connection."""

    def __init__(self, config: Config, plugin: BackendPlugin) -> None:
        self._config = config
        self._plugin = plugin

    def settings(self, name: str) -> ChannelSettings:
        """The channel's settings, or the defaults if it is not listed."""
        return self._config.channel(validate_name(name, "channel"))

    def spec(self, name: str) -> ChannelSpec:
        """The channel as drivers are told of it. Raises InvalidMessage and ConfigError."""
        settings = self.settings(name)
        semantics = settings.semantics or self._inherited(name) or self._plugin.default_semantics
        groups = settings.groups or ((DEFAULT_GROUP,) if semantics is Semantics.QUEUE else ())
        return ChannelSpec(
            name=name,
            semantics=semantics,
            groups=groups,
            partitions=settings.partitions,
            retention_s=settings.retention_s,
            max_attempts=settings.max_attempts,
            max_processing_s=settings.max_processing_s,
            native=self._config.native_for(name, self._plugin),
        )

    def published(self, spec: ChannelSpec) -> ChannelSpec:
        """The channel as a sender makes sure of it: no default group where somebody else reads.

        That one is made by its first consumer instead.
        """
        listed = self.settings(spec.name).groups
        if listed or not spec.native.others_read:
            return spec
        return replace(spec, groups=())

    def dead_letter_spec(self, source: ChannelSpec) -> ChannelSpec | None:
        """The channel for dead letters of ``source``; None if it has none."""
        name = self.settings(source.name).dead_letter_name(source.name)
        return None if name is None else self.spec(name)

    def capabilities(self, spec: ChannelSpec, more: Iterable[Requirement] = ()) -> Capabilities:
        """The declared capabilities of the channel. Raises NotSupported if one is missing."""
        declared = self._plugin.capabilities.get(spec.semantics)
        if declared is None:
            offered = ", ".join(sorted(self._plugin.capabilities))
            raise NotSupported(
                f"this backend has no {spec.semantics} semantics, it offers: {offered}",
                hint="choose another profile, or leave semantics out for the default",
                backend=self._plugin.name,
                channel=spec.name,
            )
        for requirement in (*self.settings(spec.name).requires, *more):
            if not declared.satisfies(requirement):
                has = declared.as_dict()[requirement.name]
                raise NotSupported(
                    f"requires {requirement}, but a {spec.semantics} here has "
                    f"{requirement.name}={str(has).lower()}",
                    hint="choose another profile or semantics, or drop the requirement",
                    backend=self._plugin.name,
                    channel=spec.name,
                )
        return declared

    def ensure(self, admin: AdminDriver, spec: ChannelSpec, *, create: bool | None) -> None:
        """Create the channel if that is allowed, else raise UnknownChannel if it is not there."""
        if create or (create is None and self._may_create(spec.name)):
            admin.declare(spec)
        elif not admin.exists(spec):
            raise self.missing(spec.name)

    def missing(self, name: str) -> UnknownChannel:
        """The error of a channel that is not there: it says which may be meant."""
        return UnknownChannel(
            "there is no such channel",
            hint=self._missing_hint(name),
            backend=self._plugin.name,
            channel=name,
        )

    def is_configured(self, name: str) -> bool:
        """True if the settings list it, or it is for dead letters of one that they list."""
        channels = self._config.channels
        return name in channels or any(
            settings.dead_letter_name(source) == name for source, settings in channels.items()
        )

    def group(self, spec: ChannelSpec, group: str | None, *, create: bool | None) -> str:
        """The group to join. Raises UnknownGroup for one that a queue channel does not list."""
        name = DEFAULT_GROUP if group is None else validate_name(group, "group")
        if spec.semantics is Semantics.STREAM or name in spec.groups or create:
            return name
        what = "the default group" if group is None else f"group {name!r}"
        close = difflib.get_close_matches(name, spec.groups, n=1)
        listed = ", ".join(spec.groups)
        hint = f"add it to groups of [channels.{spec.name}]; in code, create=True makes one more"
        if group is None:
            hint = f'say which: group="{spec.groups[0]}"; or {hint}'
        raise UnknownGroup(
            f"{what} is not one of this queue's groups: {listed}",
            hint=f"did you mean {close[0]!r}?" if close else hint,
            backend=self._plugin.name,
            channel=spec.name,
        )

    def _inherited(self, name: str) -> Semantics | None:
        """The semantics of the listed channel whose dead letters go to ``name``."""
        for source, settings in self._config.channels.items():
            if settings.dead_letter_name(source) == name:
                return settings.semantics
        return None

    def _missing_hint(self, name: str) -> str:
        channels = self._config.channels
        if name in channels:
            return "it is configured; whoever opens it for use first creates it"
        close = difflib.get_close_matches(name, channels, n=1)
        if close:
            return f"did you mean {close[0]!r}?"
        on_purpose = "create it on purpose: create=True, or gearshift send --create"
        return f"list it as [channels.{name}], or {on_purpose}"

    def _may_create(self, name: str) -> bool:
        channels = self._config.channels
        dead = {settings.dead_letter_name(channel) for channel, settings in channels.items()}
        return not channels or name in channels or name in dead
