"""A misfortune of a case, and whom it befell."""

from __future__ import annotations

from dataclasses import dataclass

from gearshift.misfortunes import Rule, shares_memory
from gearshift.testing.prove.simulated import GroupEntry

__all__ = ["Befallen", "Misfortune"]


@dataclass(frozen=True, slots=True)
class Misfortune:
    """What happens to the message ``target`` (a number); ``step`` says where, or how late."""

    rule: Rule
    target: int
    step: int


@dataclass(slots=True)
class Befallen:
    """A misfortune, the ``entry`` that it befell, and the ``partner`` handled in its middle."""

    misfortune: Misfortune
    entry: GroupEntry
    partner: GroupEntry | None = None

    @property
    def is_in_two_processes(self) -> bool:
        """True where two messages are handled at once that one process handles one by one."""
        group = self.entry.group
        return (
            self.partner is not None
            and self.partner.group is group
            and not shares_memory(group.situation)
        )
