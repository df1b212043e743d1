"""The settings of one channel: ``[channels.NAME]``."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from gearshift._core.consuming.rate_limit import parse_rate
from gearshift.capabilities import Requirement
from gearshift.errors import ConfigError, InvalidMessage
from gearshift.message import Semantics
from gearshift.validation import validate_name

__all__ = ["ChannelSettings"]

_YEAR_S = 366 * 86400.0

#: Least and greatest value of each number.
_RANGES: dict[str, tuple[float, float]] = {
    "partitions": (1, 10_000),
    "retention_s": (1, 100 * _YEAR_S),
    "max_attempts": (1, 1000),
    "prefetch": (1, 10_000),
    "prefetch_bytes": (1_024, 2**40),
    "max_processing_s": (0.1, 7 * 86400),
    "retry_delay_s": (0, 86400),
    "retry_max_delay_s": (0, 7 * 86400),
}


class ChannelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one channel, the same on every backend. Times are seconds. Raises ConfigError."""

    semantics: Semantics | None = None
    """"queue" or "stream"; without it the backend's default."""

    groups: tuple[str, ...] = ()
    """Groups that exist from the first message on; without it only the default group exists."""

    partitions: int | None = None
    """Number of parts of a stream, each with an order of its own; without it the backend's default.

    No effect on a queue.
    """

    retention_s: float | None = None
    """How long a stream keeps a message; without it the broker's default.

    No effect on a queue.
    """

    max_attempts: int = 5
    """How often a message is given to a handler before it becomes a dead letter."""

    dead_letter: str | bool | None = None
    """The channel for messages that are given up on: its name, true for ``CHANNEL.dead``, false for
    none. Without it: true."""

    requires: tuple[Any, ...] = ()  # of Requirement; msgspec would take that dataclass apart
    """Capabilities without which the channel is refused: ``["redelivery", "order=key"]``."""

    prefetch: int = 100
    """How many messages a consumer may have received and not settled."""

    prefetch_bytes: int = 64 * 1024 * 1024
    """About how many bytes of bodies a consumer may have received and not settled.

    One message is always taken, however large.
    """

    rate_limit: str | None = None
    """How many messages a consumer delivers per second, minute or hour: "100/s", "30/min", "500/h".

    Without it there is no limit.
    """

    max_processing_s: float | None = None
    """The longest that handling one message takes.

    Opening is refused where the broker would take the message back sooner. The health check fails
    if a consumer whose handlers are all busy settles nothing for longer. Without it, a message that
    is handled for 300 s is only reported.
    """

    retry_delay_s: float = 1.0
    """The wait before the second attempt; it doubles with each further one."""

    retry_max_delay_s: float = 60.0
    """The longest wait between attempts."""

    codec: str = "auto"
    """How bodies become values: "auto" goes by a message's content type, and leaves the body as
    bytes if it has none. "json", "text" and "bytes" say what to expect instead.

    Plugins add others.
    """

    native: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """One table for each backend, for what only that broker has."""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            _check_range(name, getattr(self, name), least, most)
        if self.retry_max_delay_s < self.retry_delay_s:
            raise ConfigError(
                f"retry_max_delay_s is less than retry_delay_s ({self.retry_delay_s:g})",
                hint="raise it, or lower retry_delay_s",
            )
        self._check_semantics()
        _check_groups(self.groups)
        force_setattr(self, "requires", _requirements(self.requires))
        if self.rate_limit is not None:
            parse_rate(self.rate_limit)
        if isinstance(self.dead_letter, str):
            _check_name("dead_letter", self.dead_letter)
        if not self.codec.strip():
            raise ConfigError("codec is blank", hint='leave it out for "auto"')

    def _check_semantics(self) -> None:
        for name in ("partitions", "retention_s"):
            if self.semantics is Semantics.QUEUE and getattr(self, name) is not None:
                raise ConfigError(
                    f'{name} is for streams, and semantics is "queue"',
                    hint=f'drop {name}, or use semantics = "stream"',
                )

    def dead_letter_name(self, channel: str) -> str | None:
        """The channel for what ``channel``, which has these settings, gives up on; None if off."""
        if self.dead_letter is False:
            return None
        return self.dead_letter if isinstance(self.dead_letter, str) else f"{channel}.dead"


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is None:
        return
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number", hint="leave it out for the default")
    if not least <= value <= most:
        raise ConfigError(f"{name} must be from {least:g} to {most:,.0f}".replace(",", "_"))


def _check_groups(groups: tuple[str, ...]) -> None:
    for index, group in enumerate(groups):
        _check_name("groups", group)
        if group in groups[:index]:
            raise ConfigError(f"groups lists {group!r} twice", hint="leave one out")


def _requirements(entries: tuple[object, ...]) -> tuple[Requirement, ...]:
    parsed: dict[str, Requirement] = {}
    for entry in entries:
        requirement = entry if isinstance(entry, Requirement) else _requirement(entry)
        if requirement.name in parsed:
            raise ConfigError(f"requires names {requirement.name!r} twice", hint="leave one out")
        parsed[requirement.name] = requirement
    return tuple(parsed.values())


def _requirement(entry: object) -> Requirement:
    try:
        return Requirement.parse(entry)  # type: ignore[arg-type]  # it refuses what is not a text
    except ConfigError as error:
        raise ConfigError(f"requires: {error.message}", hint=error.hint) from None


def _check_name(field: str, name: str) -> None:
    try:
        validate_name(name, "name")
    except InvalidMessage as error:
        raise ConfigError(f"{field}: {error.message}", hint=error.hint) from None
