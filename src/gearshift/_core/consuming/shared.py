"""A delivery window with the lock that guards it: shared by a consumer's threads."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from gearshift._core.consuming.settlements import Settlements
from gearshift._core.consuming.suspects import TURN, Turn
from gearshift._core.consuming.window import DeliveryWindow
from gearshift._core.signals import Signal
from gearshift.errors import GearshiftError

__all__ = ["SharedWindow", "no_wake"]


def no_wake() -> None:
    """Wake nobody: there is no driver."""


class SharedWindow:
    """State that users' threads (``UserSide``) share with the consumer loop (``Receiver``).

    ``lock`` guards the window and all that follows it here. Only the loop writes ``heard_at`` and
    ``cut_off``, without the lock. ``changed`` is notified when a waiting user may get on.
    """

    def __init__(
        self,
        window: DeliveryWindow,
        *,
        clock: Callable[[], float] = time.monotonic,
        turn: Turn = TURN,
    ) -> None:
        self.clock = clock
        self.turn = turn
        self.name = secrets.token_hex(4)  # of the consumer, in notes
        self.lock = threading.RLock()
        self.changed = Signal(self.lock)
        self.window = window
        self.wake: Callable[[], None] = no_wake  # has the driver's receive return
        self.ready = False  # connected, assigned and positioned
        self.draining = False  # a revocation waits for what is in hand
        self.error: GearshiftError | None = None  # has ended the loop
        self.heard_at = clock()  # the broker
        self.cut_off: GearshiftError | None = None  # why there is no connection
        window.moved_at = clock()
        window.isolation.take_turn = lambda: turn.take(self)

    def connected(self, settlements: Settlements, wake: Callable[[], None], *, ready: bool) -> None:
        """There is a new driver: what it receives is settled through ``settlements``."""
        with self.changed:
            self.window.connect(settlements)
            self.wake, self.ready = wake, ready
            self.changed.notify_all()

    def disconnected(self) -> None:
        """The driver is gone: everything unsettled is stale and will come again."""
        with self.changed:
            self.window.disconnect()
            self.wake, self.ready = no_wake, False
            self.changed.notify_all()
        self.turn.end(self)

    def heard(self, at: float | None) -> None:
        """The driver has served its connection, whose broker was last heard ``at`` (None: now)."""
        self.heard_at = self.clock() if at is None else at
        self.cut_off = None

    def failed(self, error: GearshiftError) -> None:
        """The loop has ended and will not come back; users get ``error``."""
        with self.changed:
            self.error = error
            self.changed.notify_all()
