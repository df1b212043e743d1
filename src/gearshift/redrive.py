"""Bringing dead letters back to the channel that they came from, once its consumers are mended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gearshift.bus import Bus
from gearshift.delivery import Delivery
from gearshift.errors import GearshiftError, NotSupported, UnknownChannel
from gearshift.handling.dead_letters import Death, revived
from gearshift.message import Semantics

__all__ = ["Redriven", "dead_letter_channel", "redrive"]

#: How many are in hand at once, and how many of them are sent together.
_WINDOW = 1000
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many dead letters went back, and how many others were looked at and left."""

    moved: int
    left: int


def dead_letter_channel(bus: Bus, channel: str) -> str:
    """Where the dead letters of ``channel`` are. Raises NotSupported if they are switched off."""
    name = bus.config.channel(channel).dead_letter_name(channel)
    if name is None:
        raise NotSupported(
            "dead letters are switched off for this channel",
            hint=f"leave dead_letter = false out of [channels.{channel}]",
            backend=bus.backend,
            channel=channel,
        )
    return name


def redrive(
    bus: Bus,
    channel: str,
    *,
    group: str | None = None,
    most: int | None = None,
    idle_timeout_s: float = 2.0,
    on_moved: Callable[[int], None] = lambda moved: None,
) -> Redriven:
    """Send the dead letters of ``channel`` to it again, and settle each once it is stored.

    They keep id, body, key and headers, less those that tell of their death, and every group of
    the channel gets them. With ``group`` only those that died in that group go, at most ``most``.
    Letters that came after the call, or of other channels, are left. Ends when none came for
    ``idle_timeout_s`` seconds. Blocks. Raises what sending raises: what was not stored stays where
    it is; and NotSupported where a stream would have to be redriven in part, which its one
    position cannot express.
    """
    source = dead_letter_channel(bus, channel)
    if not bus.exists(source):
        raise UnknownChannel("there are no dead letters", backend=bus.backend, channel=source)
    if bus.semantics(source) is Semantics.STREAM:
        _require_whole(bus, source, group)
    wanted = _Wanted(channel, group, time.time_ns() // 1_000_000)
    moved = 0
    with bus.producer(channel) as producer, bus.inspect(source, prefetch=_WINDOW) as letters:
        letters.ready()
        while most is None or moved < most:
            size = _BATCH if most is None else min(_BATCH, most - moved)
            received = letters.receive(size, timeout_s=idle_timeout_s)
            if not received:
                break
            chosen = [letter for letter in received if wanted.includes(letter)]
            results = producer.send_many(
                (revived(letter.message) for letter in chosen), raise_on_error=False
            )
            failures = []
            for letter, result in zip(chosen, results, strict=True):
                if isinstance(result, GearshiftError):
                    failures.append(result)
                else:
                    letter.ack()
                    moved += 1
            on_moved(moved)
            if failures:
                raise failures[0]
        letters.flush()
        return Redriven(moved, len(letters.close()))


@dataclass(frozen=True, slots=True)
class _Wanted:
    channel: str
    group: str | None
    before_ms: int

    def includes(self, letter: Delivery[Any]) -> bool:
        """Whether it died here, in that group, and before we began."""
        death = Death.of(letter.message)
        return (
            death.channel in (None, self.channel)
            and (self.group is None or death.group == self.group)
            and (death.time_ms is None or death.time_ms <= self.before_ms)
        )


def _require_whole(bus: Bus, source: str, group: str | None) -> None:
    channels = bus.config.channels.items()
    sources = [name for name, settings in channels if settings.dead_letter_name(name) == source]
    if group is None and len(sources) <= 1:
        return
    what = "of one group" if group is not None else f"of one of {', '.join(sources)}"
    raise NotSupported(
        f"dead letters {what} cannot be redriven alone: this is a stream with one position",
        hint='give the dead letters semantics = "queue", or a channel of their own',
        backend=bus.backend,
        channel=source,
    )
