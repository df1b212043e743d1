"""A profile's settings for ``sqlite``."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A profile with ``backend = "sqlite"``."""

    path: Path = Path(".gearshift/gearshift.db")
    """The database file, on a local disk; its folder is made."""

    lease_s: float = 30.0
    """How long a consumer may be silent, while its process runs, before others get its work.

    A dead process loses it at once.
    """

    busy_timeout_s: float = 5.0
    """How long a write waits for other processes' writes.

    Broker: ``PRAGMA busy_timeout``.
    """

    def __post_init__(self) -> None:
        if self.path.name.startswith(":"):
            raise ValueError("path: is not a file name (for no file, use backend = 'memory')")
        if self.path.is_dir():
            raise ValueError("path: is a folder; name a file in it")
        _require_positive("lease_s", self.lease_s)
        _require_positive("busy_timeout_s", self.busy_timeout_s)


def _require_positive(field: str, seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{field}: must be a positive number of seconds, got {seconds}")
