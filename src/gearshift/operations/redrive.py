"""Bringing dead letters back to the channel that they came from, once its consumers are mended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gearshift._core.consuming.dead_letters import Death, revived
from gearshift.bus import Bus
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import GroupStatus
from gearshift.errors import GearshiftError, InvalidMessage, NotSupported, UnknownChannel
from gearshift.message import DEFAULT_GROUP, Semantics
from gearshift.operations.skipped_letters import SkippedLetters
from gearshift.producer import Producer

__all__ = ["Redriven", "channels_of", "dead_letter_channel", "redrive"]

#: How many are in hand at once, and how many of them are sent together.
_WINDOW = 1000
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Redriven:
    """The number of dead letters that went back, and of those that were looked at and left.

    ``elsewhere`` were there and did not come: another consumer of the dead letters has them in
    hand, or has settled them. None if the broker does not tell. ``refusal`` is why the first of
    those left that can never be sent cannot.
    """

    moved: int
    left: int
    elsewhere: int | None = None
    refusal: GearshiftError | None = None


def dead_letter_channel(bus: Bus, channel: str) -> str:
    """The channel of the dead letters of ``channel``. Raises NotSupported if they are off."""
    name = bus.config.channel(channel).dead_letter_name(channel)
    if name is None:
        raise NotSupported(
            "dead letters are switched off for this channel",
            hint=f"leave dead_letter = false out of [channels.{channel}]",
            backend=bus.backend,
            channel=channel,
        )
    return name


def channels_of(bus: Bus, dead: str) -> list[str]:
    """The configured channels whose dead letters are in ``dead``."""
    channels = bus.config.channels.items()
    return [name for name, settings in channels if settings.dead_letter_name(name) == dead]


def redrive(
    bus: Bus,
    channel: str,
    *,
    into: Bus | None = None,
    group: str | None = None,
    most: int | None = None,
    idle_timeout_s: float = 2.0,
    patience_s: float = 60.0,
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
    came after the call, of other channels, of a group that the queue does not have any more, and
    those that its channel can never take. In a queue, where they would hide what lies behind them,
    they are put behind it.

    Killed halfway and called again, it goes on: a letter is settled once its copy is stored, so
    none is lost, and one that is stored twice has the same id twice.

    Ends when all that the broker had when it began have come, or it says that none waits any more,
    and none came for ``idle_timeout_s`` seconds; what another consumer has in hand is not waited
    for. Blocks. Raises what sending raises: what was not stored stays where it is; GearshiftError
    where more wait, or may wait, and none came for ``patience_s`` seconds; NotSupported where a
    stream would have to be redriven in part, which its one position cannot express.
    """
    source = dead_letter_channel(bus, channel)
    if not bus.exists(source):
        raise UnknownChannel("there are no dead letters", backend=bus.backend, channel=source)
    in_order = bus.semantics(source) is Semantics.STREAM
    if in_order:
        _require_whole(bus, source, group)
    target = into or bus
    began_ms = time.time_ns() // 1_000_000
    pending = _Pending(bus, source, SkippedLetters(bus, source))
    pending.begin()
    moved, refusal = 0, None
    with target.producer(channel) as producer, bus.inspect(source, prefetch=_WINDOW) as letters:
        wanted = _Wanted(channel, group, _groups(target, channel, group), began_ms)
        letters.ready()
        pending.begin()  # again: on a stream there may have been no group before
        silent_since = time.monotonic()
        while most is None or moved < most:
            size = _BATCH if most is None else min(_BATCH, most - moved)
            received = letters.receive(size, timeout_s=idle_timeout_s)
            if received:
                done = _send(producer, received, wanted, in_order=in_order)
                moved += done.moved
                pending.note(filter(wanted.is_old, received), done)
                on_moved(moved)
                if done.failure is not None:
                    raise done.failure
                refusal = refusal or done.refusal
                silent_since = time.monotonic()
            elif pending.have_come(letters):
                break
            elif not in_order and pending.left.put_behind():
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since >= patience_s:
                raise GearshiftError(
                    f"{moved} were redriven, and more may wait, of which none came in "
                    f"{patience_s:g} s",
                    hint="they may stand behind some that other consumers have; run it again",
                    retryable=True,
                    backend=bus.backend,
                    channel=source,
                )
        letters.flush()
    return Redriven(moved, pending.left.count, pending.elsewhere, refusal)


class _Sent(NamedTuple):
    """What became of some letters.

    ``refusal`` is of the first that can never be sent, ``failure`` why no other is to be tried.
    """

    moved: int
    left: Sequence[Delivery[Any]]
    refusal: GearshiftError | None
    failure: GearshiftError | None


def _send(
    producer: Producer, letters: Sequence[Delivery[Any]], wanted: _Wanted, *, in_order: bool
) -> _Sent:
    """Send what is wanted of ``letters``, and ack what is stored."""
    left, chosen, messages = [], [], []
    refusal = failure = None
    for letter in letters:
        if not wanted.includes(letter):
            left.append(letter)
            continue
        message = revived(letter.message, wanted.mark(letter))
        refused = producer.refusal(message)
        if refused is None:
            chosen.append(letter)
            messages.append(message)
            continue
        refusal = refusal or refused
        left.append(letter)
        if in_order:
            # Its position does not pass one that cannot be sent, so what lies behind would be sent
            # again at every try: it must not go.
            failure = refused
            break
    moved = 0
    results = producer.send_many(messages, raise_on_error=False)
    for letter, result in zip(chosen, results, strict=True):
        if not isinstance(result, GearshiftError):
            letter.ack()
            moved += 1
            continue
        left.append(letter)
        if isinstance(result, InvalidMessage) and not in_order:  # the broker knew of its limit
            refusal = refusal or result
        else:
            failure = failure or result
    return _Sent(moved, left, refusal, failure)


@dataclass(slots=True)
class _Pending:
    """The letters that were there at the beginning and have not come yet."""

    bus: Bus
    source: str
    left: SkippedLetters
    received: int = 0
    expected: int | None = None
    elsewhere: int | None = None
    _has_none: bool = False  # ready, when the broker was asked last

    def begin(self) -> None:
        """Ask the broker how many there are, unless that is known."""
        if self.expected is None and (state := self._state()):
            count = _waiting(state)
            self.expected = None if count is None else count + (state.in_flight or 0)

    def note(self, old: Iterable[Delivery[Any]], sent: _Sent) -> None:
        """``old`` letters have come, and that became of them and of newer ones."""
        self.received += sum(not self.left.has_seen(letter) for letter in old)
        self.left.add(sent.left)
        if sent.moved:
            self.left.note_moved()

    def have_come(self, letters: Consumer[Any]) -> bool:
        """True if no more will come. Asked after a while in which none came."""
        letters.flush()
        state = self._state()
        held = len(self.left.in_hand)
        all_came = self.expected is not None and self.received >= self.expected
        if letters.unsettled > held:
            return all_came
        if state is None or (count := _waiting(state)) is None:
            return self.left.have_come_round or letters._drained() is not False
        has_others = (state.consumers or 0) > 1
        if state.ready is None:
            self.elsewhere = 0 if all_came else max(0, count - held)
            return self.elsewhere == 0 or has_others  # whose partitions these are
        if state.in_flight is not None:
            self.elsewhere = max(0, state.in_flight - held)
        else:
            self.elsewhere = None if has_others else max(0, (self.expected or 0) - self.received)
        # Asked twice where it matters: some may be on their way to us, and a busy broker may say 0.
        had_none, self._has_none = self._has_none, not count
        if all_came or self.left.have_come_round:
            return True
        return not count and (had_none or self.elsewhere == 0)

    def _state(self) -> GroupStatus | None:
        states = self.bus.groups(self.source)
        return next((state for state in states if state.group == DEFAULT_GROUP), None)


def _waiting(state: GroupStatus) -> int | None:
    """The number that waits for a group, also for one that is yet to begin; None if not told."""
    return state.retained if state.waiting is None else state.waiting


@dataclass(frozen=True, slots=True)
class _Wanted:
    channel: str
    group: str | None
    groups: frozenset[str] | None  # None: any may read, as on a stream
    before_ms: int

    def mark(self, letter: Delivery[Any]) -> str | None:
        """The group that its copy is for; with a single group it need not say so."""
        is_marked = self.groups is None or len(self.groups) > 1
        return Death.of(letter.message).group if is_marked else None

    def is_old(self, letter: Delivery[Any]) -> bool:
        """True if it died before we began."""
        died_ms = Death.of(letter.message).time_ms
        return died_ms is None or died_ms <= self.before_ms

    def includes(self, letter: Delivery[Any]) -> bool:
        """True if it died here, in that group or one that is still there, and before we began."""
        death = Death.of(letter.message)
        return (
            death.channel in (None, self.channel)
            and (self.group is None or death.group == self.group)
            and (self.groups is None or death.group is None or death.group in self.groups)
            and self.is_old(letter)
        )


def _groups(bus: Bus, channel: str, named: str | None) -> frozenset[str] | None:
    """The groups of a queue; ``named`` is one even if the broker cannot list it."""
    if bus.semantics(channel) is Semantics.STREAM:
        return None
    return frozenset(state.group for state in bus.groups(channel)) | ({named} if named else set())


def _require_whole(bus: Bus, source: str, group: str | None) -> None:
    sources = channels_of(bus, source)
    if group is None and len(sources) <= 1:
        return
    what = "of one group" if group is not None else f"of one of {', '.join(sources)}"
    raise NotSupported(
        f"dead letters {what} cannot be redriven alone: this is a stream with one position",
        hint='give the dead letters semantics = "queue", or a channel of their own',
        backend=bus.backend,
        channel=source,
    )
