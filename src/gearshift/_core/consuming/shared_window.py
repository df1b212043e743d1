"""A delivery window with the lock that guards it: shared by a consumer's threads."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from gearshift._core.condition import ObservedCondition
from gearshift._core.consuming.settlements import Settlements
from gearshift._core.consuming.suspects import TURN, Turn
from gearshift._core.consuming.window import DeliveryWindow
from gearshift.errors import GearshiftError

__all__ = ["SharedWindow", "no_wake"]


#: Longer than any turn of the loop, and any opening of a driver, takes. Seconds.
STOOD_STILL_S = 15.0


def no_wake() -> None:
    """Wake nobody: there is no driver."""


class SharedWindow:
    """State that users' threads (``UserSide``) share with the consumer loop (``Receiver``).

    ``lock`` guards the window and all that follows it here. Only the loop writes ``heard_at``,
    ``drained`` and ``cut_off``, without the lock. ``changed`` is notified when a waiting user may
    get on.
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
        self.name = ""  # of the consumer, in notes
        self._turned_at = clock()
        self._rename()
        self.lock = threading.RLock()
        self.changed = ObservedCondition(self.lock)
        self.window = window
        self.wake: Callable[[], None] = no_wake  # has the driver's receive return
        self.ready = False  # connected, assigned and positioned
        self.draining = False  # a revocation waits for what is in hand
        self.error: GearshiftError | None = None  # has ended the loop
        self.heard_at = clock()  # the broker
        self.drained: bool | None = None  # as its driver says
        self.cut_off: GearshiftError | None = None  # why there is no connection
        window.moved_at = clock()
        window.isolation.take_turn = lambda: turn.take(self)

    def connected(self, settlements: Settlements, wake: Callable[[], None], *, ready: bool) -> None:
        """There is a new driver: what it receives is settled through ``settlements``."""
        self._turned_at = self.clock()
        with self.changed:
            self.window.connect(settlements)
            self.wake, self.ready = wake, ready
            self.changed.notify_all()

    def disconnected(self) -> None:
        """The driver is gone: everything unsettled is stale and will come again."""
        self.turn_taken()
        with self.changed:
            self.window.disconnect()
            self.wake, self.ready, self.drained = no_wake, False, False
            self.changed.notify_all()
        self.turn.end(self)

    def heard(self, at: float | None) -> None:
        """The driver has served its connection, whose broker was last heard ``at`` (None: now)."""
        self.turn_taken()
        self.heard_at = self._turned_at if at is None else at
        self.cut_off = None

    def turn_taken(self) -> None:
        """The loop gets on. After a pause it is another consumer, in notes: what it had in hand may
        have kept the process still, which is a death of that to whoever stands there next."""
        now = self.clock()
        if now - self._turned_at > STOOD_STILL_S:
            self._rename()
        self._turned_at = now

    def _rename(self) -> None:
        self.name = secrets.token_hex(4)

    def failed(self, error: GearshiftError) -> None:
        """The loop has ended and will not come back; users get ``error``."""
        with self.changed:
            self.error = error
            self.changed.notify_all()
