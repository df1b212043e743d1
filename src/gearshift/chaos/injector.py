"""What befalls a driver: drawn from the seed, allowed by a rule, told when it happens."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random

from gearshift.chaos.settings import Kind, Settings
from gearshift.errors import ConnectionFailed
from gearshift.misfortunes import Situation, rule

__all__ = ["ConnectionDropped", "Injector", "Side"]

log = logging.getLogger("gearshift.chaos")

#: The rule of ``gearshift.misfortunes`` that allows each. Without one the delay alone is left.
_RULES = {
    Kind.LOST_ACK: rule("lost ack"),
    Kind.SESSION_LOST: rule("crash inside"),
    Kind.SEND_UNCONFIRMED: rule("duplicate"),
    Kind.UNFLAGGED: rule("unflagged"),
    Kind.LATE: rule("reordered"),
    Kind.RETURNS_LATE: rule("returns late"),
}
_CONNECTIONS = frozenset({Kind.LOST_ACK, Kind.SESSION_LOST, Kind.SEND_UNCONFIRMED})


class ConnectionDropped(ConnectionFailed):
    """A connection that chaos has taken away."""


class Side:
    """A channel's producers, or a group's consumers: what their drivers have in common.

    Any thread; ``_lock`` guards all. ``on_loss`` is called with the log's line of each lost
    connection. ``played`` counts what has happened, ``unacked`` are the ids of messages whose ack
    was lost and that have not come again.
    """

    def __init__(self, name: str, settings: Settings, on_loss: Callable[[str], None]) -> None:
        self.name = name
        self.settings = settings
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._drivers = 0
        self.played: Counter[Kind] = Counter()
        self.unacked: set[str | None] = set()
        self._lost_at: float | None = None

    @property
    def has_lost(self) -> bool:
        """True once one of its connections was lost."""
        return self._lost_at is not None

    def randoms(self) -> dict[Kind, Random]:
        """The next driver's generators: the same in each run with this seed.

        One for each kind, so that what is drawn for one does not depend on the others' timing.
        """
        with self._lock:
            self._drivers += 1
            name = f"{self.settings.seed} {self.name} {self._drivers}"
        return {kind: Random(f"{name} {kind}") for kind in Kind}

    def may_lose(self) -> bool:
        """True if a connection may be lost now; it then is."""
        with self._lock:
            now = time.monotonic()
            if self._lost_at is not None and now - self._lost_at < self.settings.quiet_s:
                return False
            self._lost_at = now
            return True

    def tell(self, kind: Kind, text: str) -> None:
        """Count a misfortune, and log it."""
        with self._lock:
            self.played[kind] += 1
        log.info("%s: %s", self.name, text)
        if kind in _CONNECTIONS:
            self._on_loss(f"{self.name}: {text}")


class Injector:
    """One driver's. Its methods are called one at a time."""

    def __init__(self, side: Side, situation: Situation) -> None:
        self.situation = situation
        self.side = side
        self._randoms = side.randoms()

    def why(self, kind: Kind) -> str | None:
        """The sentence that allows ``kind`` here, or None."""
        return _RULES[kind].why(self.situation)

    def strikes(self, kind: Kind) -> bool:
        """Draw: True if ``kind`` is to happen now, which the capabilities then allow."""
        drawn = self._randoms[kind].random() < self.side.settings.rate_of(kind)
        if not drawn or (kind is not Kind.LATE and self.why(kind) is None):
            return False
        return kind not in _CONNECTIONS or self.side.may_lose()

    def seconds(self, kind: Kind) -> float:
        """Draw how long something lasts."""
        return self._randoms[kind].uniform(0.0, self.side.settings.late_s)

    def number(self, kind: Kind, least: int, most: int) -> int:
        """Draw a number."""
        return self._randoms[kind].randint(least, most)

    def tell(self, kind: Kind, text: str) -> None:
        """Log what has happened, with the capability that allows it."""
        self.side.tell(kind, f"{text} ({self.why(kind)})")

    def drop(self, kind: Kind, text: str) -> ConnectionDropped:
        """Tell of a lost connection, and return the error that says so."""
        self.tell(kind, f"connection lost {text}")
        return ConnectionDropped(f"chaos: connection lost {text}")
