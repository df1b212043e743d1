"""The columns of a comparison: profiles of the settings file, and what a report says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gearshift import config as configuration
from gearshift import plugins
from gearshift.compare.ledger import Column, Setting
from gearshift.compare.stage import Broker
from gearshift.errors import ConfigError
from gearshift.message import Semantics

__all__ = ["broker_of", "brokers_of", "described"]

_EMBEDDED = """\
profile = "embedded"
[profiles.embedded]
backend = "sqlite"
path = "compare.db"
"""


def brokers_of(columns: Sequence[str], config: Path | None, folder: Path) -> list[Broker]:
    """A broker per column; without columns an embedded one in ``folder``, as queue and as stream.

    Raises ConfigError.
    """
    if not columns:
        file = folder / "gearshift.toml"
        file.write_text(_EMBEDDED)
        return [
            Broker(config=file, profile="embedded", semantics=semantics) for semantics in Semantics
        ]
    brokers = [broker_of(column, config) for column in columns]
    for place, broker in enumerate(brokers):
        if broker in brokers[:place]:
            raise ConfigError(f"column {columns[place]!r} is there twice", hint="leave one out")
    return brokers


def broker_of(column: str, config: Path | None, channel: str = "") -> Broker:
    """What ``profile`` or ``profile:semantics`` means. Raises ConfigError.

    Without semantics it is what the settings say of ``channel``, else the backend's natural one.
    """
    profile, separator, name = column.partition(":")
    loaded = configuration.load(config, profile=profile)
    plugin = plugins.load(loaded.backend)
    if not separator:
        semantics = loaded.channel(channel).semantics or plugin.natural
        return Broker(config=loaded.file, profile=profile, semantics=semantics)
    offered = [str(semantics) for semantics in plugin.capabilities]
    if name not in offered:
        raise ConfigError(
            f"column {column!r}: backend {plugin.name!r} has no semantics {name!r}",
            hint="one of " + ", ".join(f"{profile}:{other}" for other in offered),
        )
    return Broker(config=loaded.file, profile=profile, semantics=Semantics(name))


def described(broker: Broker) -> Column:
    """What the report says of a column. Connects, so that what is down is known at once."""
    config = configuration.load(broker.config, profile=broker.profile)
    plugin = plugins.load(config.backend)
    channel = "described"  # it need not be there
    bus, _ = broker.open({channel: {"semantics": broker.semantics}})
    with bus:
        return Column(
            id=f"{broker.profile}:{broker.semantics}",
            profile=broker.profile,
            semantics=broker.semantics.value,
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
