"""A condition variable that also tells those who cannot wait on it: event loops."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from typing import Any

__all__ = ["ObservedCondition"]


class ObservedCondition(Condition):
    """Calls its ``listeners`` with every ``notify_all``, with the lock held: they must not block.

    The lock guards ``listeners``, which is replaced and never changed.
    """

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self.listeners: tuple[Callable[[], object], ...] = ()

    def notify_all(self) -> None:
        super().notify_all()
        for listener in self.listeners:
            listener()

    def listen(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` from now on."""
        with self:
            self.listeners = (*self.listeners, listener)

    def unlisten(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` no more."""
        with self:
            self.listeners = tuple(one for one in self.listeners if one != listener)
