"""A profile's settings for ``memory``."""

from __future__ import annotations

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A profile with ``backend = "memory"``."""

    max_messages: int = 1_000_000
    """How many messages one channel holds; over it, sending is refused."""

    def __post_init__(self) -> None:
        if self.max_messages < 1:
            raise ValueError(f"max_messages: must be at least 1, got {self.max_messages}")
