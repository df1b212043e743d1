"""How far a story on a broker is: what is still to be handled, and which message it is of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gearshift.delivery import Delivery
from gearshift.message import Message

__all__ = ["Entry", "Progress", "Taken", "Wanted"]

#: A group's number, and the id of a message that it is given.
Entry: TypeAlias = tuple[int, str | None]


@dataclass(slots=True)
class Progress:
    """What each group has still to handle, in the order in which it was sent. Goes through a pipe.

    ``wanted`` is the message of the story, once it was sent; ``dead`` are dead letters, each
    with its channel.
    """

    wanted: Entry | None = None
    left: list[Entry] = field(default_factory=list)
    dead: list[tuple[str, Message]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The message of the story, which the group ``number`` is given. Any thread.

    One that a handler has sent under an id of chance is known by what it says.
    """

    number: int
    message: Message
    is_sent_by_handler: bool
    is_stored_twice: bool

    def is_it(self, message: Message) -> bool:
        """True for the message as it is sent on the broker."""
        mine = self.message
        if message.id == mine.id or not self.is_sent_by_handler:
            return message.id == mine.id
        return (message.key, message.body) == (mine.key, mine.body)


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery, and the number of the group that got it."""

    number: int
    delivery: Delivery[Any]

    @property
    def entry(self) -> Entry:
        """Which one it is."""
        return self.number, self.delivery.id
