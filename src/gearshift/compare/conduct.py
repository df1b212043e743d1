"""Whether a user's handler can be compared at all: one that hangs or gives up shows nothing."""

from __future__ import annotations

from collections.abc import Sequence

from gearshift.compare.ledger import Event
from gearshift.errors import GearshiftError

__all__ = ["Conduct", "HandlerUnfit"]

#: What takes longer with one message could not finish any scenario.
_HANGS_AFTER_S = 15.0


class HandlerUnfit(GearshiftError):
    """The user's handler does not handle the messages of a comparison."""


class Conduct:
    """Follows the event log of a trial whose workers run a user's handler. One thread."""

    def __init__(self) -> None:
        self.poison: int | None = None  #: fails whatever the handler does
        self._read = 0
        self._last: dict[str, Event] = {}  # of each worker

    def check(self, events: Sequence[Event], now_ms: float) -> None:
        """Raise HandlerUnfit for a handler that hangs or that gave up a message.

        ``events`` are all until now, in the order of writing.
        """
        for event in events[self._read :]:
            if event.kind == "settle" and event.what == "reject" and event.seq != self.poison:
                raise HandlerUnfit(f"the handler gave up message {event.seq}{self._why(event)}")
            self._last[event.who] = event
        self._read = len(events)
        for event in self._last.values():
            if event.kind == "deliver" and now_ms - event.at_ms > _HANGS_AFTER_S * 1000:
                raise HandlerUnfit(
                    f"the handler has not come back from message {event.seq} "
                    f"within {_HANGS_AFTER_S:g} s"
                )

    def _why(self, rejected: Event) -> str:
        before = self._last.get(rejected.who)
        failed = before is not None and before.kind == "failed"
        return f" after {rejected.attempt} attempts: {before.what}" if before and failed else ""
