"""Guarantees of each channel on a profile in plain words, and changes by a switch.

Nothing is sent and no connection is made: it is read out of the configuration, the handlers and
what backends declare. The words are those of ``sentences``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gearshift import config as configuration
from gearshift.bus.topology import Topology
from gearshift.capabilities import Capabilities, Requirement
from gearshift.config import Config, Unset
from gearshift.driver import Backend, BackendPlugin, ChannelSpec
from gearshift.errors import ConfigError, GearshiftError, NotSupported
from gearshift.message import Semantics
from gearshift.operations.sentences import LARGEST, SENTENCES, Value
from gearshift.worker.app import App, Handler

__all__ = [
    "Change",
    "Explanation",
    "Fact",
    "Refusal",
    "Relation",
    "changes",
    "explain",
    "load_profile",
]

_LINE = re.compile(r":\d+$")

#: Settings that a fact depends on; all others come with the semantics.
_SETTINGS = {
    "redelivery": ("max_processing_s",),
    "native_retry": ("retry_delay_s", "retry_max_delay_s"),
    "dead_letter": ("dead_letter", "max_attempts"),
    "fan_out": ("groups",),
    "prefetch": ("prefetch",),
    "lease": ("max_processing_s",),
    "members": ("semantics", "partitions"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that holds: the capability, its level, a sentence, and the settings behind it."""

    capability: str
    level: Value
    sentence: str
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a channel would not open. ``requires`` is the requirement that is not met, if any."""

    error: GearshiftError
    requires: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One channel on one profile. No facts where the backend lacks its semantics altogether.

    ``place`` is where the profile was chosen or is set up: "gearshift.toml:3", or "environment".
    """

    profile: str
    backend: str
    channel: str
    semantics: Semantics
    because: str
    place: str
    facts: tuple[Fact, ...]
    refusals: tuple[Refusal, ...]


class Relation(StrEnum):
    """A fact on the new profile, compared with the old one. DIFFERS: neither is more."""

    WORSE = "worse"
    BETTER = "better"
    DIFFERS = "differs"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A fact before and after a switch of profile."""

    channel: str
    relation: Relation
    before: Fact
    after: Fact


def load_profile(
    path: str | Path | None, profile: str | None, *, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration with ``profile`` selected, even if secrets that it refers to are unset.

    Nothing is connected to, so the values of unset variables do not matter. Raises ConfigError.
    """
    known = os.environ if environ is None else environ
    return configuration.load(path, profile=profile, environ=Unset(known))


def explain(config: Config, app: App | None = None) -> list[Explanation]:
    """Every channel of ``config``, and those of ``app``'s handlers, on the selected profile.

    Does not block. Raises ConfigError and PluginError where the profile itself cannot be used.
    """
    with config.masking():
        plugin = config.load_plugin()
    backend = None
    try:
        backend = plugin.connect(config.settings_for(plugin))
    except ConfigError:
        if not config.unset:
            raise  # else that may be the reason, and what a backend checks has to wait
    reader = _Reader(config, plugin, backend, app.handlers if app else ())
    try:
        return [reader.channel(name) for name in reader.names()]
    finally:
        if backend is not None:
            backend.close()


def changes(before: Sequence[Explanation], after: Sequence[Explanation]) -> list[Change]:
    """The changes by a switch from ``before``'s profile to ``after``'s, fact by fact.

    A channel that either side has no facts of is left out: its refusals tell why.
    """
    facts = {(one.channel, fact.capability): fact for one in after for fact in one.facts}
    return [
        Change(channel=old.channel, relation=_relation(fact, other), before=fact, after=other)
        for old in before
        for fact in old.facts
        if (other := facts.get((old.channel, fact.capability)))
    ]


@dataclass(frozen=True, slots=True)
class _Reader:
    config: Config
    plugin: BackendPlugin
    backend: Backend | None  # None: not known, for want of variables
    handlers: Sequence[Handler]

    def names(self) -> list[str]:
        """The channels, configured ones first."""
        return list(dict.fromkeys([*self.config.channels, *(h.channel for h in self.handlers)]))

    def channel(self, name: str) -> Explanation:
        topology = Topology(self.config, self.plugin)
        spec = topology.spec(name)
        declared = self.plugin.capabilities.get(spec.semantics)
        return Explanation(
            profile=self.config.profile,
            backend=self.plugin.name,
            channel=name,
            semantics=spec.semantics,
            because=self._because(name, "semantics"),
            place=self._place(name),
            facts=tuple(self._facts(name, declared)) if declared else (),
            refusals=tuple(self._refusals(topology, spec, declared)),
        )

    def _facts(self, name: str, declared: Capabilities) -> Iterator[Fact]:
        settings = self.config.channel(name)
        for capability, level in declared.as_dict().items():
            if capability == "dead_letter" and settings.dead_letter_name(name) is None:
                level = False
            fields = _SETTINGS.get(capability, ("semantics",))
            yield Fact(
                capability=capability,
                level=level,
                sentence=_sentence(capability, level),
                because=tuple(
                    self._because(name, field)
                    for field in fields
                    if field != "partitions" or level == "partitions"
                ),
            )

    def _refusals(
        self, topology: Topology, spec: ChannelSpec, declared: Capabilities | None
    ) -> Iterator[Refusal]:
        try:
            if declared is None:
                topology.capabilities(spec)
            if self.backend is not None:
                self.backend.check(spec)
        except GearshiftError as error:
            yield Refusal(error=error)
        if declared is not None:
            for requirement, whose in self._requirements(spec.name):
                if not declared.satisfies(requirement):
                    missing = NotSupported(
                        f"{whose} requires {requirement}, which a {spec.semantics} on "
                        f"{self.plugin.name} does not have",
                        hint="choose another profile or semantics, or drop the requirement",
                    )
                    yield Refusal(error=missing, requires=str(requirement))
        for handler in self._handlers(spec.name):
            try:
                topology.group(spec, handler.group, create=None)
            except GearshiftError as error:
                yield Refusal(error=error)

    def _requirements(self, channel: str) -> Iterator[tuple[Requirement, str]]:
        for requirement in self.config.channel(channel).requires:
            yield requirement, "the configuration"
        for handler in self._handlers(channel):
            for requirement in Requirement.parse_all(handler.requires):
                yield requirement, f"the handler {handler.name}"

    def _handlers(self, channel: str) -> list[Handler]:
        return [handler for handler in self.handlers if handler.channel == channel]

    def _place(self, channel: str) -> str:
        """The line of the profile's choice, of its backend, or of the channel, in a file."""
        rows = {row.key: row.origin for row in self.config.rows()}
        known = [
            self.config.profile_origin,
            rows.get(f"profiles.{self.config.profile}.backend", ""),
            *(origin for key, origin in rows.items() if key.startswith(f"channels.{channel}.")),
        ]
        return next((place for place in known if _LINE.search(place)), known[0])

    def _because(self, channel: str, field: str) -> str:
        """A setting, its value, and where it comes from."""
        if field == "semantics" and self.config.channel(channel).semantics is None:
            return f"semantics is not set: {self.plugin.name}'s default"
        rows = {row.key: row for row in self.config.rows()}
        row = rows.get(f"channels.{channel}.{field}")
        if row is None:  # of a handler's channel that is not configured
            return f"{field}: default"
        return f"{field} = {row.value} ({row.origin})"


def _sentence(capability: str, level: Value) -> str:
    return SENTENCES[capability].get(level) or LARGEST.format(level)


def _relation(before: Fact, after: Fact) -> Relation:
    if before.level == after.level:
        return Relation.SAME
    if before.capability in ("native_retry", "native_delay"):
        return Relation.DIFFERS
    ranks = list(SENTENCES[before.capability])
    old, new = ((ranks.index(f.level) if ranks else f.level) for f in (before, after))
    return Relation.BETTER if int(new) > int(old) else Relation.WORSE
