"""Limit to the messages that a consumer hands out in a time, however fast they come."""

from __future__ import annotations

import re

from gearshift.errors import ConfigError

__all__ = ["RateLimit", "parse_rate"]

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)/(s|min|h)")
_LOWEST, _HIGHEST = 1 / 86_400, 1_000_000.0  # messages a second

#: So much of a second's worth may go at once, so that a limit does not break batches apart.
_BURST_S = 0.1


def parse_rate(text: object) -> float:
    """Messages a second of ``"100/s"``, ``"30/min"`` or ``"500/h"``. Raises ConfigError."""
    found = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    per_second = float(found[1]) / _SECONDS[found[2]] if found else 0.0
    if not _LOWEST <= per_second <= _HIGHEST:
        raise ConfigError(
            f"rate_limit: {text!r} is no rate", hint='write it as "100/s", "30/min" or "500/h"'
        )
    return per_second


class RateLimit:
    """A bucket that fills evenly and holds a tenth of a second's worth, at least one message.

    Times are those of one clock, in seconds. Does not lock and never waits.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._capacity = max(1.0, per_second * _BURST_S)
        self._level = self._capacity
        self._filled_at: float | None = None

    def allowance(self, now: float) -> int:
        """The number of messages that may go now."""
        if self._filled_at is not None:
            gained = (now - self._filled_at) * self._per_second
            self._level = min(self._capacity, self._level + gained)
        self._filled_at = now
        return int(self._level + 1e-6)  # what is due is due, whatever floats make of it

    def spend(self, count: int) -> None:
        """So many have gone."""
        self._level -= count

    def wait_s(self) -> float:
        """Seconds after the last ``allowance`` until one message may go."""
        return max(0.0, (1.0 - self._level) / self._per_second)
