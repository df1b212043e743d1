"""A profile's settings for ``sqlite``."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``path``: the database file; its folder is made. It must be on a local disk.

    ``lease_s``: a consumer that is silent for longer, but whose process still runs, loses its work
    to others. (A dead process loses it at once.) ``busy_timeout_s``: how long a write waits for
    other processes' writes.
    """

    path: Path = Path(".gearshift/gearshift.db")
    lease_s: float = 30.0
    busy_timeout_s: float = 5.0

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
