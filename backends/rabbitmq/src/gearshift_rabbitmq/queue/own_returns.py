"""What this process returned to a queue itself, so that it is no suspect if it comes here again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gearshift.driver import Received
from gearshift_rabbitmq.wire.properties import without_headers

__all__ = ["OwnReturns"]


class OwnReturns:
    """Marks of messages that one member gave back, or held when a connection broke while this
    process did not stand still. The member's next driver gets them. On one thread at a time.
    """

    def __init__(self, prefetch: int) -> None:
        self._most = 10 * prefetch
        self._marks: set[tuple[bytes, int]] = set()
        #: Settled last, which the broker may not have received when the connection breaks.
        self._settled: deque[tuple[bytes, int]] = deque(maxlen=prefetch)

    def add(self, messages: Iterable[Received]) -> None:
        """Note what goes back though nothing was lost."""
        if len(self._marks) > self._most:
            self._marks.clear()  # others have received them
        self._marks.update(map(_mark, messages))

    def settled(self, one: Received) -> None:
        """Note what is being settled."""
        self._settled.append((one.token.properties.wire, hash(one.message.body)))

    def connection_broke(self, held: Iterable[Received]) -> None:
        """Note what was held, and what was settled last."""
        self.add(held)
        self._marks.update((without_headers(wire), body) for wire, body in self._settled)
        self._settled.clear()

    def discard(self, one: Received) -> bool:
        """Whether it is one; it is none any more."""
        mark = _mark(one)
        is_one = mark in self._marks
        self._marks.discard(mark)
        return is_one


def _mark(one: Received) -> tuple[bytes, int]:
    """The same for each delivery of a message: the broker changes its headers only."""
    return without_headers(one.token.properties.wire), hash(one.message.body)
