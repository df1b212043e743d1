"""One partition being read: an AMQP channel with one consumer, and what it has brought."""

from __future__ import annotations

import datetime
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pika import exceptions

from gearshift.driver import Received, Start, StartAt
from gearshift.message import Position
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.errors import is_held_too_long, speaks_of_its_node
from gearshift_rabbitmq.rpc import Rpc
from gearshift_rabbitmq.stream.scan import OFFSET, beginning_of
from gearshift_rabbitmq.subscription import Subscription
from gearshift_rabbitmq.wire.decoding import received

__all__ = ["PartitionReader"]

#: RabbitMQ gives a reader nothing ever again whose place retention has just deleted (seen with
#: 3.10.8 and 4.3.6). So one that gets nothing asks anew, after these seconds and then less often.
_ANEW_AFTER_S = 5.0
_ANEW_AT_LEAST_EVERY_S = 60.0

#: After a silence of so many seconds the broker is asked whether it has still more.
_SILENT_S = 1.0


class PartitionReader:
    """Reads ``queue`` from ``start`` on until it is closed. ``window`` bounds what waits here, but
    for the rest of a chunk: brokers before 4.0 send whole ones.

    Acknowledgements only ask for more: a group's position is not the broker's affair.

    ``position`` is the group's next offset, where it has read before: from there on, and from what
    is taken here, ``skipped`` hears how many messages were deleted before they came.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        partition: int,
        start: Start,
        window: int,
        *,
        position: int | None,
        skipped: Callable[[int, int], None],
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._partition = partition
        #: The offset behind what was taken, and that behind what has come; None if unknown.
        self.next = self._arrived = position
        self._skipped = skipped
        #: True if the broker has said, since the last message, that it has no more.
        self.drained = False
        self._silences = 0
        self._begin(start, window)

    def _begin(self, start: Start, window: int) -> None:
        self._start = start
        is_offset = start.at is StartAt.OFFSET
        self._from_offset = start.positions.get(self._partition) if is_offset else None
        self._from_ms = start.time_ms if start.at is StartAt.TIME else None
        self._ready: deque[tuple[int, Received]] = deque()
        self._ended: Exception | None = None
        rpc = Rpc(self._connection)
        self._channel = rpc.channel
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_cancel_callback(self._on_cancel)
        self._expect(_ANEW_AFTER_S)
        self._begin_silence()
        self._subscription = Subscription(
            rpc, self._queue, self._on_message, name="reader", window=window
        )
        # From an offset on nothing is missed meanwhile, and the other partitions go on: RabbitMQ
        # 4.3.6 answers only after 10 s for as long as another node stands still.
        self._subscription.start(
            {OFFSET: _specification(start, self._partition)}, now=not is_offset
        )
        if is_offset:
            self._subscription.restart()

    def take(self, max_messages: int) -> list[Received]:
        """Up to ``max_messages`` of what has come. Raises why nothing will any more."""
        if self._ended is not None:
            if not is_held_too_long(self._ended):
                raise self._ended
            # Slow work let something wait here for too long, which harms nobody.
            self._arrived, start = self.next, self._start
            if self._ready:
                self._arrived = self._ready[0][1].token.offset
                start = self._at(self._arrived)
            self._begin(start, self._subscription.window)
        taken = [self._ready.popleft() for _ in range(min(max_messages, len(self._ready)))]
        if not taken and max_messages and time.monotonic() > self._ask_at:
            self._ask()
        if not taken and max_messages and time.monotonic() > self._anew_at:
            self._expect(min(2 * self._anew_after_s, _ANEW_AT_LEAST_EVERY_S))
            if self.next is not None and self._is_subscribed():
                self._subscription.stop()
                self._go_on()
        if taken:
            self._channel.basic_ack(taken[-1][0], multiple=True)
            self._start = self._at(taken[-1][1].token.offset + 1)
        for _, one in taken:
            offset = one.token.offset
            if self.next is not None and offset > self.next:
                self._note_gap(self.next, offset)
            self.next = offset + 1
        return [one for _, one in taken]

    def fit(self, window: int) -> None:
        """Have the broker push about ``window`` messages ahead. Does not wait.

        What is on its way is dropped and sent again, so fewer are only asked for while none is; and
        nothing is changed before it is known where to go on.
        """
        subscription = self._subscription
        if self._arrived is None or subscription.fits(window):
            return
        can_change = window > subscription.window or len(self._ready) >= subscription.window
        if can_change and self._is_subscribed():
            subscription.resize(window, len(self._ready))
            self._go_on()

    def close(self) -> None:
        """Stop reading. Does not wait."""
        self._ready.clear()
        if self._channel.is_open:
            self._channel.close()

    def _is_subscribed(self) -> bool:
        return self._channel.is_open and not self._subscription.is_starting

    def _go_on(self) -> None:
        """Subscribe again, behind what has come."""
        self._from_offset = self._arrived
        self._subscription.restart(arguments={OFFSET: self._arrived})

    def _ask(self) -> None:
        """Have the broker say something behind all that it has for this reader.

        One of its processes serves an AMQP channel: it sends what a stream has as far as it is
        acknowledged, and answers in turn.
        """
        self._ask_at = math.inf
        asked = self._silences

        def answered(_: Any) -> None:
            self.drained = asked == self._silences

        if self._channel.is_open:
            self._channel.queue_declare(self._queue, passive=True, callback=answered)

    def _expect(self, within_s: float) -> None:
        self._anew_after_s = within_s
        self._anew_at = time.monotonic() + within_s

    def _begin_silence(self) -> None:
        self.drained = False
        self._silences += 1
        self._ask_at = time.monotonic() + _SILENT_S

    def _note_gap(self, expected: int, found: int) -> None:
        """The broker's own records have offsets as well, so a gap alone is no loss."""
        oldest = beginning_of(self._connection, self._queue)
        if oldest > expected:
            self._skipped(self._partition, min(oldest, found) - expected)

    def _at(self, offset: int) -> Start:
        return Start(StartAt.OFFSET, {self._partition: offset})

    def _on_message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        offset = int(properties.headers[OFFSET])
        is_late = method.consumer_tag != self._subscription.tag  # of one that was stopped
        # A stream gives whole chunks, also what lies before the start.
        if is_late or (self._from_offset is not None and offset < self._from_offset):
            self._channel.basic_ack(method.delivery_tag)
            return
        self._expect(_ANEW_AFTER_S)
        self._begin_silence()
        message = received(method, properties, body, routed=False).message
        if self._from_ms is not None:
            if (message.timestamp_ms or 0) < self._from_ms:
                self._channel.basic_ack(method.delivery_tag)
                return
            self._from_ms = None
        self._arrived = offset + 1
        position = Position(self._partition, offset)
        self._ready.append((method.delivery_tag, Received(message, position, position)))

    def _on_cancel(self, _: Any) -> None:
        self._connection.leave_node()
        self._ended = exceptions.ConsumerCancelled(f"stream {self._queue!r} was deleted or moved")

    def _on_close(self, _: Any, reason: Exception) -> None:
        if speaks_of_its_node(reason):
            self._connection.leave_node()
        self._ended = self._ended or reason


def _specification(start: Start, partition: int) -> Any:
    """Where the broker is to begin, in its own terms."""
    match start.at:
        case StartAt.EARLIEST:
            return "first"
        case StartAt.LATEST:
            return "next"
        case StartAt.OFFSET:
            return start.positions[partition]
        case StartAt.TIME:
            return datetime.datetime.fromtimestamp((start.time_ms or 0) / 1000, datetime.UTC)
