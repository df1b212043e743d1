"""Messages that are gathered for one call of a handler."""

from __future__ import annotations

from dataclasses import dataclass

from gearshift._core.consuming.entry import Entry

__all__ = ["Gathering"]


@dataclass(slots=True, eq=False)
class Gathering:
    """A batch of at most ``most`` messages while it grows: it asks the window as a user does.

    Its messages may be of one key, in their order; those of other batches wait until it is settled.
    What comes again is a batch of its own: whatever it did to others, it does alone from then on.
    """

    most: int
    taken: int = 0
    is_complete: bool = False

    def admit(self, entry: Entry) -> bool:
        """Take on ``entry``; False if it has to wait for the next batch, which ends this one."""
        comes_again = entry.attempts > 1 or entry.lost > 0
        if comes_again and self.taken:
            self.is_complete = True
            return False
        self.taken += 1
        self.is_complete = comes_again or self.taken >= self.most
        return True

    def drop(self, count: int) -> None:
        """So many of what was taken on are not for a handler after all."""
        if count:
            self.taken -= count
            self.is_complete = False
