"""Which thread drives a producer's client: a driver's own thread, or a sender that waits.

One thread at a time *drives*: it publishes what is queued, serves the client and reports outcomes.
A message that is handed to another thread, and its outcome back, costs two switches of threads,
more than all else that a send does. So a sender that is alone drives itself until it has its
outcome, and the own thread rests::

    own thread drives ──nothing is open, and senders may come that wait──▶ rests
         ▲                                                                   │
         ├── recalled: something is submitted that nobody serves; a sender   │
         │   leaves others' outcomes behind, or a broken client; close ──────┤
         └── no sender has come for REST_S: the broker must be heard ────────┘

    sender ──nobody drives──▶ drives until it has its outcome ──▶ nobody drives
         └──somebody drives──▶ has the own thread recalled, and waits for its outcome

Many senders at once make the own thread drive: it gathers their messages. The flags change under
``_lock`` only. Nothing is overlooked: what is submitted is counted before its sender looks who
drives, and who stops driving looks at that count afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Handover"]

#: How long nobody may drive; much less than a heartbeat.
REST_S = 0.1


class Handover:
    """Begins with the own thread driving, which must not rest while it ``is_needed``."""

    def __init__(self, is_needed: Callable[[], bool]) -> None:
        self._is_needed = is_needed
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._driven = True
        self._rests = False  # the own thread waits in ``rest``
        self._recalled = False
        self._came = False  # a sender has driven since the own thread looked

    def take(self) -> bool:
        """A sender: True if it drives from now on, and must ``give_back``. Never blocks."""
        with self._lock:
            if self._driven:
                return False
            self._driven = self._came = True
            return True

    def give_back(self, *, broken: bool) -> None:
        """A sender that drove: stop, and call the own thread if it is needed, as if ``broken``."""
        with self._lock:
            self._driven = False
            self._recalled = self._recalled or broken or self._is_needed()
            if self._recalled:
                self._changed.notify()

    def recall(self) -> None:
        """Make the own thread drive as soon as no sender does, if it rests. Any thread."""
        if self._rests:
            with self._lock:
                self._recalled = True
                self._changed.notify()

    def rest(self) -> None:
        """The own thread: let senders drive, until it is recalled or none has come for a while."""
        with self._lock:
            self._driven = self._recalled = False
            self._rests = self._came = True
            while self._driven or not (self._recalled or self._is_needed()):
                if not (self._changed.wait(REST_S) or self._driven or self._came):
                    break
                self._came = False
            self._driven, self._rests = True, False
