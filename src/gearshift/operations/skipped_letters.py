"""Dead letters that a redrive looks at and leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gearshift._core.consuming.dead_letters import REDRIVE_GROUP, Death
from gearshift.bus import Bus
from gearshift.delivery import Delivery
from gearshift.errors import StaleDelivery
from gearshift.message import DEFAULT_GROUP, Headers, Message

__all__ = ["SkippedLetters"]


@dataclass(slots=True)
class SkippedLetters:
    """Those that were received from ``source`` and not moved. One thread.

    They fill the window of a consumer, which then sees nothing of what lies behind them. So they
    are put behind all others of their queue, as often as that brings out any that are new.
    """

    bus: Bus
    source: str
    in_hand: list[Delivery[Any]] = field(default_factory=list)
    _seen: set[Hashable] = field(default_factory=set)
    _behind: int = 0  # of those that were put there last, and have not come again
    _has_new: bool = True  # others have come since

    def add(self, letters: Iterable[Delivery[Any]]) -> None:
        """Keep ``letters`` in hand."""
        for letter in letters:
            self.in_hand.append(letter)
            if self.has_seen(letter):
                self._behind -= 1
            else:
                self._seen.add(_identity(letter.message))
                self._has_new = True

    def note_moved(self) -> None:
        """Others have come, and have gone."""
        self._has_new = True

    def has_seen(self, letter: Delivery[Any]) -> bool:
        """True if it has come before, or a copy of it."""
        return _identity(letter.message) in self._seen

    @property
    def count(self) -> int:
        """The number of different letters that have been left."""
        return len(self._seen)

    @property
    def have_come_round(self) -> bool:
        """True if all that were put behind the others have come again, and nothing new before."""
        return self._behind <= 0 and not self._has_new

    def put_behind(self) -> bool:
        """Store copies behind all others and settle what is in hand; False if that is of no use.

        Killed in between, what was stored twice has its id twice. Blocks, and raises, as sending.
        """
        if not self._has_new or not self.in_hand:
            return False
        groups = [state.group for state in self.bus.groups(self.source)]
        mark = DEFAULT_GROUP if len(groups) > 1 else None
        with self.bus.producer(self.source, create=False) as producer:
            copies = [_resting(letter.message, mark) for letter in self.in_hand]
            producer.send_many(copies)
        for letter in self.in_hand:
            with contextlib.suppress(StaleDelivery):  # it comes again, too
                letter.ack()
        self._behind, self._has_new = len(self.in_hand), False
        self.in_hand.clear()
        return True


def _identity(message: Message) -> Hashable:
    """The same for a letter and its copy."""
    return message.id or message.body, message.key, Death.of(message)


def _resting(message: Message, group: str | None) -> Message:
    """``message`` as it is, to be stored among the dead again; for ``group`` alone, if any."""
    headers = message.headers
    if group is not None and not message.has_header(REDRIVE_GROUP):
        headers = Headers((*headers.pairs, (REDRIVE_GROUP, group)))
    native = message.native
    return message.replace(headers=headers, native=native and replace(native, resting=True))
