"""The columns of a comparison: profiles of the settings file, and what a report says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gearshift import config as configuration
from gearshift._observe.access import Access
from gearshift.compare.ledger import Column, Setting
from gearshift.errors import ConfigError
from gearshift.message import Semantics

__all__ = ["PARTITIONS", "Target", "described", "target_of", "targets_of"]

#: Partitions of every stream, so that all columns have the same.
PARTITIONS = 4

_EMBEDDED = """\
profile = "embedded"
[profiles.embedded]
backend = "sqlite"
path = "compare.db"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A profile of a settings file (None: the nearest) and the semantics to use it with."""

    config: Path | None
    profile: str
    semantics: Semantics

    def access(self, channels: Mapping[str, Mapping[str, Any]]) -> Access:
        """The way to its broker, for this process and others, with ``channels`` and no others."""
        return Access(
            config=None if self.config is None else str(self.config),
            profile=self.profile,
            channels={name: dict(settings) for name, settings in channels.items()},
        )


def targets_of(columns: Sequence[str], config: Path | None, folder: Path) -> list[Target]:
    """A target per column; without columns an embedded one in ``folder``, as queue and as stream.

    Raises ConfigError.
    """
    if not columns:
        file = folder / "gearshift.toml"
        file.write_text(_EMBEDDED)
        return [
            Target(config=file, profile="embedded", semantics=semantics) for semantics in Semantics
        ]
    targets = [target_of(column, config) for column in columns]
    for place, target in enumerate(targets):
        if target in targets[:place]:
            raise ConfigError(f"column {columns[place]!r} is there twice", hint="leave one out")
    return targets


def target_of(column: str, config: Path | None, channel: str = "") -> Target:
    """The target that ``profile`` or ``profile:semantics`` names. Raises ConfigError.

    Without semantics it is what the settings say of ``channel``, else the backend's default.
    """
    profile, separator, name = column.partition(":")
    loaded = configuration.load(config, profile=profile)
    plugin = loaded.load_plugin()
    if not separator:
        semantics = loaded.channel(channel).semantics or plugin.default_semantics
        return Target(config=loaded.file, profile=profile, semantics=semantics)
    offered = [str(semantics) for semantics in plugin.capabilities]
    if name not in offered:
        raise ConfigError(
            f"column {column!r}: backend {plugin.name!r} has no semantics {name!r}",
            hint="one of " + ", ".join(f"{profile}:{other}" for other in offered),
        )
    return Target(config=loaded.file, profile=profile, semantics=Semantics(name))


def described(target: Target) -> Column:
    """A column as the report describes it. Connects, so that a broker that is down is noticed."""
    config = configuration.load(target.config, profile=target.profile)
    plugin = config.load_plugin()
    channel = "described"  # it need not be there
    with target.access({channel: {"semantics": target.semantics.value}}).open() as bus:
        return Column(
            id=f"{target.profile}:{target.semantics}",
            profile=target.profile,
            semantics=target.semantics.value,
            backend=plugin.name,
            server=bus.server(),
            embedded=not bus.endpoints(),
            capabilities=bus.capabilities(channel, live=True).as_dict(),
            settings=tuple(
                Setting(row.key, row.value, row.origin)
                for row in config.rows(plugin)
                if row.key.startswith(("profile", "profiles."))
            ),
        )
