"""Finding out that a queue is out of reach for the connected node, which the broker does not say.

A node that is cut off from most of its cluster may go on serving its clients: RabbitMQ 4.x does,
3.x unless ``cluster_partition_handling`` is ``pause_minority``. Its consumers are given nothing and
hear nothing but heartbeats. Two things show it (measured with 4.3.6):

- Asked for the counts of a quorum queue with its leader elsewhere, such a node says 0, also of its
  consumers, to one of them.
- A leader on the node itself goes on telling what it knew, but nothing that it is asked to do gets
  done for want of a majority. Taking from an empty queue is such a thing, and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pika import exceptions
from pika.spec import Basic

from gearshift_rabbitmq.connection import Connection

__all__ = ["LeaderCheck"]

#: An election takes a few seconds. A leader that is too busy to answer at once is 0 too, so one
#: look is not enough; and a consumer that is given messages has a leader.
_LOOK_EVERY_S = 5.0
_LOOKS = 3

#: The longest wait for an answer. Seconds.
_ANSWER_S = 10.0


class LeaderCheck:
    """Asks about ``queue`` now and then. On the thread that drives ``connection``.

    ``state`` returns another one after each message and in each subscription: only answers of one
    state count together. ``empty`` names a quorum queue that is taken from as well, if nothing is
    in it: only while nothing is held, for the broker may close the connection over that.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        state: Callable[[], object],
        empty: Callable[[], str | None],
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._current_state = state
        self._empty = empty
        self._state: object = None
        self._looked_at = time.monotonic()
        self._answered = True
        self._zeros = 0

    def look(self) -> None:
        """Ask if it is time to. Never waits; raises ConsumerCancelled if out of reach."""
        now = time.monotonic()
        if self._connection.stood_still:
            self._looked_at = now  # what was silent was this process
        since_s = now - self._looked_at
        if self._zeros >= _LOOKS:
            self._forget_other_state()
        if self._zeros >= _LOOKS or (not self._answered and since_s > _ANSWER_S):
            self._connection.leave_node()
            raise exceptions.ConsumerCancelled(
                f"queue {self._queue!r} is out of reach for this node"
            )
        if self._answered and since_s >= _LOOK_EVERY_S:
            self._answered = False
            self._looked_at = now
            self._forget_other_state()
            self._ask(self._state, self._empty())

    def _forget_other_state(self) -> None:
        state = self._current_state()
        if state != self._state:
            self._state, self._zeros = state, 0

    def _ask(self, state: object, empty: str | None) -> None:
        def on_open(channel: Any) -> None:
            channel.queue_declare(self._queue, passive=True, callback=on_counts)

        def on_counts(frame: Any) -> None:
            if state == self._current_state():
                self._zeros = 0 if frame.method.consumer_count else self._zeros + 1
            if empty is None:
                channel.close()
            else:
                channel.queue_declare(empty, passive=True, callback=on_empty)

        def on_empty(frame: Any) -> None:
            if frame.method.message_count or empty is None:
                channel.close()
                return
            channel.add_callback(lambda _: channel.close(), [Basic.GetEmpty])
            channel.basic_get(empty, lambda *_: channel.close())  # which gives it back

        def on_close(*_: object) -> None:  # also if the queue is gone, of which its consumer hears
            self._answered = True

        channel = self._connection.pika.channel(on_open_callback=on_open)
        channel.add_on_close_callback(on_close)
