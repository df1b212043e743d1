"""Opens the same broker, with the same channels, in several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from gearshift import config as configuration
from gearshift.bus import Bus, open_bus

__all__ = ["Access"]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """A profile of a settings file (None: the nearest), whose channels are replaced by others."""

    config: str | None
    profile: str
    channels: dict[str, dict[str, Any]]

    def open(self) -> Bus:
        """A bus of its own. Raises ConfigError and PluginError."""
        config = configuration.load(self.config, profile=self.profile)
        return open_bus(config=configuration.with_channels(config, self.channels))

    def rehearsal(self, file: Path, plugins: Sequence[object]) -> Bus:
        """A bus with the channels of the settings file: what it sends goes to ``file`` alone."""
        config = configuration.load(self.config, profile=self.profile)
        return open_bus(config=replace(config, rehearsal=file), plugins=plugins)
