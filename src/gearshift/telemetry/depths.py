"""What a broker tells of the groups and the dead letters of some channels, in bounded time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from gearshift.bus import Bus
from gearshift.driver import GroupStatus
from gearshift.errors import ConnectionFailed, GearshiftError, UnknownChannel

__all__ = ["TIMEOUT_S", "Depths", "Told"]

log = logging.getLogger("gearshift.telemetry")

#: How long all questions together are waited for, so that a scrape is answered within 2 s.
TIMEOUT_S = 1.5

#: What is asked, a method of Bus, and of which channel.
_Question: TypeAlias = tuple[Literal["groups", "dead_letters"], str]


@dataclass(frozen=True, slots=True)
class Told:
    """The last answers of a broker, by channel, each with its age.

    ``dead_letters`` has the channels that hold them, None where their number is not told.
    ``error`` is why one is missing or old; None if all was told just now.
    """

    groups: Mapping[str, Sequence[GroupStatus]]
    dead_letters: Mapping[str, int | None]
    ages_s: Mapping[str, float]
    error: GearshiftError | None


class Depths:
    """Asks a broker about some channels and their dead letters. Any thread.

    It asks one question after the other, on a thread of its own, in one round at a time: so a
    broker that does not answer delays nobody for long, and is asked once however many want to know.
    ``_lock`` guards ``_round``.
    """

    def __init__(self, bus: Bus, channels: Sequence[str], timeout_s: float) -> None:
        self._bus = bus
        dead = dict.fromkeys(bus.config.channel(name).dead_letter_name(name) for name in channels)
        self._questions: list[_Question] = [("groups", name) for name in channels]
        self._questions += [("dead_letters", name) for name in dead if name is not None]
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._round: threading.Thread | None = None
        self._answers: dict[_Question, tuple[float, Any]] = {}
        self._is_complete = False  # the last round that has ended
        self._error: GearshiftError | None = None  # the first of that round

    def ask(self) -> Told:
        """Wait for a round, which may have begun before, and return the last answers."""
        with self._lock:
            if self._round is None or not self._round.is_alive():
                self._is_complete = False
                self._round = threading.Thread(
                    target=self._ask_all, name="gearshift-depths", daemon=True
                )
                self._round.start()
            asking = self._round
        asking.join(self._timeout_s)
        if asking.is_alive():
            self._error = ConnectionFailed(
                f"no answer within {self._timeout_s:g} s", backend=self._bus.backend
            )
        answers, now = dict(self._answers), time.monotonic()
        return Told(
            {name: answer for (kind, name), (_, answer) in answers.items() if kind == "groups"},
            {name: count for (kind, name), (_, count) in answers.items() if kind != "groups"},
            {name: now - told_at for (_, name), (told_at, _) in answers.items()},
            None if self._is_complete else self._error,
        )

    def _ask_all(self) -> None:
        first: GearshiftError | None = None
        for kind, name in self._questions:
            try:
                answer = getattr(self._bus, kind)(name, timeout_s=self._timeout_s)
            except UnknownChannel:
                self._answers[kind, name] = (time.monotonic(), ())
            except ConnectionFailed as error:
                log.debug("no depths: %s", error)
                self._error = error
                return  # the others are on the same broker
            except GearshiftError as error:
                log.debug("no depth of %r: %s", name, error)
                self._answers.pop((kind, name), None)
                first = first or error
            else:
                self._answers[kind, name] = (time.monotonic(), answer)
        self._error = first
        self._is_complete = first is None
