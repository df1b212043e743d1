"""Bringing dead letters back to the channel that they came from, once its consumers are mended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gearshift._core.consuming.dead_letters import Death, revived
from gearshift.bus import Bus
from gearshift.delivery import Delivery
from gearshift.errors import GearshiftError, NotSupported, UnknownChannel
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
    into: Bus | None = None,
    group: str | None = None,
    most: int | None = None,
    idle_timeout_s: float = 2.0,
    on_moved: Callable[[int], None] = lambda moved: None,
) -> Redriven:
    """Send the dead letters of ``channel`` to it again, and settle each once it is stored.

    They leave as they came, less the headers that tell of their death, also with what only their
    broker has a name for. Each goes back to the group in which it died: where there are several it
    has the header ``redrive-group``, and consumers of other groups settle it unseen. A foreign
    letter that names no group goes to all.
    With ``into`` they go to the channel of that name on another broker, for what died before a
    switch; what that broker does not take is left out (see ``crossing``). What its channel makes of
    a group that died there holds as above.
    With ``group`` only those that died in that group go, at most ``most``. Left are letters that
    came after the call, of other channels, and of a group that the queue does not have any more.

    Killed halfway and called again, it goes on: a letter is settled once its copy is stored, so
    none is lost, and one that is stored twice has the same id twice.

    Ends when none came for ``idle_timeout_s`` seconds. Blocks. Raises what sending raises: what was
    not stored stays where it is; GearshiftError where so many are left that it could not look
    behind them; and NotSupported where a stream would have to be redriven in
    part, which its one position cannot express.
    """
    source = dead_letter_channel(bus, channel)
    if not bus.exists(source):
        raise UnknownChannel("there are no dead letters", backend=bus.backend, channel=source)
    in_order = bus.semantics(source) is Semantics.STREAM
    if in_order:
        _require_whole(bus, source, group)
    began_ms = time.time_ns() // 1_000_000
    moved = 0
    target = into or bus
    with target.producer(channel) as producer, bus.inspect(source, prefetch=_WINDOW) as letters:
        groups = _groups(target, channel, group)
        wanted = _Wanted(channel, group, groups, began_ms)
        mark = groups is None or len(groups) > 1  # with a single group a copy needs no header more
        letters.ready()
        while most is None or moved < most:
            size = _BATCH if most is None else min(_BATCH, most - moved)
            received = letters.receive(size, timeout_s=idle_timeout_s)
            if not received:
                break
            chosen = [letter for letter in received if wanted.includes(letter)]
            messages = [
                revived(letter.message, Death.of(letter.message).group if mark else None)
                for letter in chosen
            ]
            failures = []
            if in_order:
                # Its position does not pass one that cannot be sent, so what lies behind would be
                # sent again at every try: it must not go.
                refused = [producer.refusal(message) for message in messages]
                failures = [error for error in refused if error is not None][:1]
                if failures:
                    del messages[refused.index(failures[0]) :]
            results = producer.send_many(messages, raise_on_error=False)
            for letter, result in zip(chosen, results, strict=False):
                if isinstance(result, GearshiftError):
                    failures.append(result)
                else:
                    letter.ack()
                    moved += 1
            on_moved(moved)
            if failures:
                raise failures[0]
        letters.flush()
        left = len(letters.close())
    if left >= _WINDOW:
        raise GearshiftError(
            f"{moved} were redriven, and {left} others stand before what may still be there",
            hint="redrive those, or purge them, then run it again",
            backend=bus.backend,
            channel=source,
        )
    return Redriven(moved, left)


@dataclass(frozen=True, slots=True)
class _Wanted:
    channel: str
    group: str | None
    groups: frozenset[str] | None  # None: any may read, as on a stream
    before_ms: int

    def includes(self, letter: Delivery[Any]) -> bool:
        """Whether it died here, in that group or one that is still there, and before we began."""
        death = Death.of(letter.message)
        return (
            death.channel in (None, self.channel)
            and (self.group is None or death.group == self.group)
            and (self.groups is None or death.group is None or death.group in self.groups)
            and (death.time_ms is None or death.time_ms <= self.before_ms)
        )


def _groups(bus: Bus, channel: str, named: str | None) -> frozenset[str] | None:
    """The groups of a queue; ``named`` is one even if the broker cannot list it."""
    if bus.semantics(channel) is Semantics.STREAM:
        return None
    return frozenset(state.group for state in bus.groups(channel)) | ({named} if named else set())


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
