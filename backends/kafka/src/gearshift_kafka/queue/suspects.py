"""Suspects on a share group: what was lost with a consumer is set aside and handed out alone.

A share consumer acquires many messages at once, and when it dies the broker counts a delivery of
each. So what comes for the second time is stored in a topic of its own, with a loss more, before
anybody is given it. Records there are batches of one, and a share consumer that polls for one
acquires one (measured): what the broker counts there is that message's own. It is polled while this
consumer holds nothing else, and others wait until it brings nothing more.

After a poll in vain the client goes on asking, and acquires whatever comes next, for ever
(measured). So it is looked after in between: what comes while something else is in hand is stored
again as it is, and the consumer is given nothing new until it holds nothing.
"""

from __future__ import annotations

import time

from gearshift_kafka.queue.lane import Lane, LaneFactory, Source

__all__ = ["Suspects"]

#: A poll for one that lies there brings it within milliseconds; a new group assigns in seconds.
_LOOK_S = 0.5
_JOIN_S = 6.0


class Suspects:
    """One member's lanes for suspects. One thread.

    ``are_expected`` is true from when one is known to be there until there are none.
    """

    def __init__(self, new_lane: LaneFactory) -> None:
        self._new_lane = new_lane
        self._vain_since: float | None = None
        self.lanes: list[Lane] = []
        self.are_expected = False

    def open(self, size: int = 1) -> Lane:
        """A further lane."""
        lane = self._new_lane(Source.SUSPECTS, size)
        self.lanes.append(lane)
        return lane

    def make_room(self, size: int, most: int) -> None:
        """Open a further lane if all are in use, for several suspects at once."""
        if len(self.lanes) < most and not any(lane.is_idle for lane in self.lanes):
            self.open(size)

    def expect(self) -> None:
        """There is one, or there may be more behind the last."""
        if not self.lanes:
            self.open()
        self.are_expected = True
        self._vain_since = None

    def came_none(self) -> None:
        """The first lane was polled in vain."""
        now = time.monotonic()
        if self._vain_since is None:
            self._vain_since = now
        patience_s = _LOOK_S if self.lanes[0].membership.is_assigned else _JOIN_S
        self.are_expected = now - self._vain_since < patience_s
