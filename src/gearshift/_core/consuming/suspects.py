"""Isolation of the messages that a process held when it died: for every broker.

Only what a handler was given is an attempt. What a dead process held is *lost*: one message may
have killed it, the others only lay there. So a lost message is a *suspect*, and a suspect is taken
alone: its consumer holds nothing else, and fetches it only when somebody asks for a message; other
consumers of the process hold no suspect meanwhile (see ``Turn``). If it is lost again, that was its
own doing. One loss therefore ends nothing; from the second on every loss is an attempt, the first
included, so a message that kills whoever takes it ends after ``max_attempts`` deaths.

A thread that holds a suspect and asks for more waits ``INSIST_S``, then suspects are handed out
like others until there are none: who collects several messages before settling any gets them all
the same, and those share their deaths.

Queues count what is lost, each in its way. On a log core counts, with a note beside a group's
position in a partition (see ``Mark``). The reasons are in docs/design/0031.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gearshift._core.consuming.entry import Entry
from gearshift.driver import Place

__all__ = ["INSIST_S", "TURN", "TURN_S", "Isolation", "Mark", "Turn", "is_given_up"]

#: Time that separates a handler that kills at once from one that collects.
INSIST_S = 1.0

#: How long others wait for the suspect of one, whose handler may be waiting for them.
TURN_S = 5.0

_WRITTEN = re.compile(r"gearshift (-|[0-9a-f]+) (-?\d+) (\d+) (\d+) (\d+)")
_NOWHERE = -1


def is_given_up(attempts: int, lost: int, max_attempts: int) -> bool:
    """True if a message is not to be handed out for another of its ``attempts``."""
    return attempts > max_attempts and lost != 1


class Consumer(Protocol):
    """A consumer of this process. ``wake`` has it look again soon, from any thread."""

    @property
    def wake(self) -> Callable[[], None]: ...


class Turn:
    """The consumer of a process whose suspect is worked on. Any thread; ``_lock`` guards all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._holder: Consumer | None = None
        self._until = 0.0
        self._waiting: dict[Consumer, None] = {}  # in the order in which they came

    def take(self, consumer: Consumer) -> bool:
        """True if ``consumer`` has it now, for ``TURN_S``. Else it is woken when it is its turn."""
        with self._lock:
            now = self._clock()
            if self._holder not in (None, consumer) and now < self._until:
                self._waiting[consumer] = None
                return False
            self._waiting.pop(consumer, None)
            self._holder, self._until = consumer, now + TURN_S
            return True

    def end(self, consumer: Consumer) -> None:
        """``consumer`` has no suspect in hand any more. Not under a lock: this wakes another."""
        with self._lock:
            self._waiting.pop(consumer, None)
            if self._holder is not consumer:
                return
            # Whoever waits longest has it for as long as a wake may take.
            self._holder = next(iter(self._waiting), None)
            self._until = self._clock() + INSIST_S
            holder = self._holder
        if holder is not None:
            holder.wake()


#: This process's.
TURN = Turn()


class Isolation:
    """The state of a consumer that takes messages one by one, as suspects are among them.

    Neither locks nor reads a clock. ``take_turn`` asks for the process's turn: see ``Turn``.
    """

    def __init__(self, take_turn: Callable[[], bool] = lambda: True) -> None:
        self.take_turn = take_turn
        self.has_turn = False  # since it looked for a suspect
        self.active = False  # a suspect came last
        self.together = False  # and is handed out like others
        self.suspect: Entry | None = None  # the one that went out last, in this consumer's turn
        self.asking = 0  #: users that wait
        self._polled = False  # one has asked in vain, and will ask again
        self._holder: object = None  # thread, task or batch that was given the last one
        self._given_at = 0.0

    @property
    def has_suspect(self) -> bool:
        """True while a suspect is in hand."""
        return self.suspect is not None and not self.suspect.has_ended

    def admit(self, arrivals: Sequence[Entry]) -> bool:
        """Note what has come. False for a suspect that nobody asked for: it has to go back."""
        self.active = any(one.lost for one in arrivals)
        self.together &= self.active
        if self.active and not self.together and not self.room(0):
            return False
        if self.active:
            self.suspect = arrivals[-1]
        return True

    def ask(self) -> bool:
        """A user is about to wait. True if the next message is only fetched for that."""
        self._polled = True
        return self.active

    def insist(self, user: object, held: int, now: float) -> bool:
        """The ``user`` looks in vain. True if it holds the suspect, so that it will get more."""
        if not self.active or not held or self._holder != user:
            return False
        self.together |= now - self._given_at >= INSIST_S
        return True

    def answered(self, user: object, now: float) -> None:
        """The ``user`` got something."""
        self._polled = False
        self._holder, self._given_at = user, now

    def room(self, unsettled: int) -> int:
        """Number of messages that may be received while ``active`` and not ``together``."""
        if unsettled or not (self._polled or self.asking):
            return 0
        self.has_turn = self.take_turn()
        return int(self.has_turn)

    def ends_turn(self) -> bool:
        """True if it has the turn and its suspect has ended, or none came; then it has none."""
        if not self.has_turn or self.has_suspect:
            return False
        self.active &= self.suspect is not None  # where none came, none is known of any more
        self.suspect = None
        return True


class Mark:
    """The consumer that stands in a partition of a log, and what is suspected there.

    A log counts no deliveries, so this is kept as a note with the position: once before the first
    message is handed out, and no more after an orderly leave. A new owner that finds the note of
    another knows of a death: the next ``window`` messages are suspects. Before a suspect is handed
    out that is noted as well, so a further death counts for those that were handed out only.
    """

    def __init__(self, place: Place, holder: str, window: int) -> None:
        """Of the owner ``holder``, which has found ``place``."""
        self.position = int(place)
        self._holder = holder
        self._window = window
        self._since = self.position
        before = _Note.parse(place.note)
        self._until, self._held = before.until, before.held
        self._deaths = before.deaths
        self._begins = False  # the suspects begin with the first message that comes
        if before.holder not in ("", holder):
            if self._is_held(self.position):
                self._deaths += 1
            elif self.position >= self._until:
                self._begins = True

    @property
    def suspects(self) -> bool:
        """True if there may be a suspect among what comes."""
        return self._begins or bool(self._held) or self._until != _NOWHERE

    def losses(self, offset: int) -> int:
        """Known deaths with the message at ``offset``; 0 for one that is not a suspect."""
        if offset in self._held:
            return self._deaths
        if self._begins:
            self._begins = False
            self._since, self._until = offset, offset + self._window
        return int(self._since <= offset < self._until)

    def hold(self, offset: int, position: int) -> None:
        """A suspect is about to be handed out, alone unless others from ``position`` on are."""
        if offset in self._held:
            return
        if self._is_held(position):
            self._held = range(self._held.start, offset + 1)
        else:
            self._held, self._deaths = range(offset, offset + 1), 1

    def leave(self) -> None:
        """Nobody stands here any more."""
        self._holder = ""

    def note(self, position: int) -> str:
        """The note to store with ``position``, before which nothing is suspected any more."""
        if not self._is_held(position):
            self._held, self._deaths = range(0), 0
        if position >= self._until:
            self._until = _NOWHERE
        return str(_Note(self._holder, self._until, self._held, self._deaths))

    def _is_held(self, position: int) -> bool:
        """True if a suspect that was handed out is not behind ``position``."""
        return bool(self._held) and position < self._held.stop


class _Note(NamedTuple):
    """A mark in writing, such as ``gearshift 5f3a09c2 130 117 118 2``: see ``Mark``."""

    holder: str = ""
    until: int = _NOWHERE
    held: range = range(0)
    deaths: int = 0

    @staticmethod
    def parse(text: str) -> _Note:
        """Read one; what somebody else has written says nothing."""
        found = _WRITTEN.fullmatch(text)
        if found is None:
            return _Note()
        holder, (until, first, end, deaths) = found[1], map(int, found.groups()[1:])
        return _Note("" if holder == "-" else holder, until, range(first, end), deaths)

    def __str__(self) -> str:
        if self == _Note():
            return ""
        first, end = self.held.start, self.held.stop
        return f"gearshift {self.holder or '-'} {self.until} {first} {end} {self.deaths}"
