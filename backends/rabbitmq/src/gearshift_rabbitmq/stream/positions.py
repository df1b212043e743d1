"""A group's positions: for each partition a quorum queue of one message, the next offset.

Core's note (see ``gearshift.driver.Place``) is in its header ``gearshift-note``.

``x-max-length: 1`` with ``drop-head`` makes a confirmed publish replace what was there. Only the
partition's owner reads or writes it (see ``owners``), and it never writes while it has the message
out to read it: a message that is given back to a full queue would push out the newer one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pika import exceptions
from pika.spec import Basic, BasicProperties

from gearshift.driver import Place, Start, StartAt
from gearshift_rabbitmq.confirms import ConfirmWatch, confirmed
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.declaring import declare_queue, placed
from gearshift_rabbitmq.rpc import Rpc, find
from gearshift_rabbitmq.stream.names import StreamNames

__all__ = ["Positions"]

_ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-max-length": 1,
    "x-overflow": "drop-head",
    # Reading counts as a delivery, and brokers from 4.0 on drop a message after 20.
    "x-delivery-limit": 1_000_000,
}

_NOTE = "gearshift-note"

#: Before a time in milliseconds, which stands where no offset is known yet.
_TIME = b"time:"

#: The offset of a place that is such a time.
_UNKNOWN_OFFSET = -1

#: Without a commit for so long one is repeated; and without a confirm for so long, of any, the
#: connected node does not reach most of its cluster. Seconds.
_REPEAT_S = 5.0
_UNCONFIRMED_S = 12.0

#: A position that somebody has out to read it is given back within this time, also by a process
#: that stands still or a broker that is busy. RabbitMQ 4.3 takes a minute where the reader's node
#: is down (``consumer_disconnected_timeout``). A group that began anew would skip messages.
_GIVEN_BACK_S = 65.0


class Positions:
    """Reads and commits positions of ``group``. On the thread that drives ``connection``."""

    def __init__(self, connection: Connection, names: StreamNames, group: str) -> None:
        self._connection = connection
        self._names = names
        self._group = group
        self._failed: Exception | None = None
        self._unconfirmed: set[int] = set()
        self._number = 0
        self._committed: dict[int, tuple[bytes, str]] = {}  # of owned partitions, with its note
        self._published_at = time.monotonic()
        self._watch = ConfirmWatch(connection, _UNCONFIRMED_S)
        self._times: dict[int, bytes] = {}  # where partitions begin whose offset is not known yet
        rpc = Rpc(connection)
        self._channel = rpc.channel
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_return_callback(self._on_return)
        rpc("confirm_delivery", ack_nack_callback=self._on_confirm)

    def register(self) -> None:
        """Store the group's name: what it has in a place that nobody knew of would outlive its
        channel. Waits for the broker."""
        self._publish(self._names.registry, self._group.encode())
        self.flush(5.0)

    def restart(self, partition: int) -> None:
        """Set it to the beginning of ``partition``, which is made anew. Waits for the broker."""
        self._ensure(self._names.position(partition, self._group))
        self.commit({partition: Place(0)})
        self.flush(5.0)

    def read(self, partition: int) -> tuple[Start, Place] | None:
        """Where the group is; None if it has never been in that partition.

        Waits for one that is out to be read, and in vain if the first owner ever died before it had
        stored any.
        """
        queue = self._names.position(partition, self._group)
        is_new = self._ensure(queue)
        deadline = time.monotonic() + (0.0 if is_new else _GIVEN_BACK_S)
        while (found := self._peek(queue)) is None and time.monotonic() < deadline:
            self._connection.serve(0.1)
        if found is None:
            return None
        self._committed[partition] = body, note = found
        if body.startswith(_TIME):
            self._times[partition] = body
            start = Start(StartAt.TIME, time_ms=int(body.removeprefix(_TIME)))
            return start, Place(_UNKNOWN_OFFSET, note)
        return Start(StartAt.OFFSET, {partition: int(body)}), Place(int(body), note)

    def begin(self, partition: int, start: Start) -> Place:
        """Commit where a new group starts: an offset, or a time that no message was read from."""
        place = Place(start.positions.get(partition, 0))
        if start.at is StartAt.TIME:
            self._times[partition] = _TIME + str(start.time_ms or 0).encode()
            place = Place(_UNKNOWN_OFFSET)
        self.commit({partition: place})
        return place

    def commit(self, positions: Mapping[int, Place]) -> None:
        """Write them; does not wait for the broker."""
        for partition, at in positions.items():
            body = self._times[partition] if at == _UNKNOWN_OFFSET else str(int(at)).encode()
            self._committed[partition] = body, at.note
            self._publish(self._names.position(partition, self._group), body, at.note)

    def keep(self) -> None:
        """Make sure, now and then, that commits are still stored. Never waits; raises TimeoutError.

        A node that is cut off from most of its cluster may go on serving its clients (see
        ``leader``); here it goes on with what it has of a stream. A commit that is repeated changes
        nothing, and such a node cannot confirm it.
        """
        self._watch.check(bool(self._unconfirmed))
        is_quiet = time.monotonic() - self._published_at > _REPEAT_S and not self._unconfirmed
        if self._connection.has_other_nodes and self._committed and is_quiet:
            partition = min(self._committed)
            self._publish(self._names.position(partition, self._group), *self._committed[partition])

    def forget(self, partition: int) -> None:
        """It is about to have another owner: nothing more is committed there."""
        self._committed.pop(partition, None)

    def flush(self, timeout_s: float) -> None:
        """Wait until the broker has everything. Raises what it refused, TimeoutError."""
        if not self._connection.wait_for(lambda: self._failed or not self._unconfirmed, timeout_s):
            raise TimeoutError(f"no answer to commits within {timeout_s:g} s")
        self.check()

    def check(self) -> None:
        """Raise what became of an earlier commit."""
        if self._failed is not None:
            raise self._failed

    def _ensure(self, queue: str) -> bool:
        """Make sure that the queue is there; True if it was not."""
        if find(self._connection, "queue", queue) is not None:
            return False
        declare_queue(self._connection, queue, placed(_ARGUMENTS, self._names.native))
        return True

    def _peek(self, queue: str) -> tuple[bytes, str] | None:
        """The queue's message and its note."""
        rpc = Rpc(self._connection)
        answers: list[tuple[bytes, str] | None] = []

        def on_message(_: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
            rpc.channel.basic_reject(method.delivery_tag, requeue=True)
            answers.append((body, str((properties.headers or {}).get(_NOTE, ""))))

        rpc.channel.add_callback(lambda _: answers.append(None), [Basic.GetEmpty])
        rpc.channel.basic_get(queue, on_message)
        rpc.wait(lambda: answers, "a position")
        rpc("queue_declare", queue=queue, passive=True)  # an answer: the rejection has arrived
        rpc.close()
        return answers[0] if answers else None

    def _publish(self, queue: str, body: bytes, note: str = "") -> None:
        self.check()
        self._published_at = time.monotonic()
        self._number += 1
        self._unconfirmed.add(self._number)
        properties = BasicProperties(delivery_mode=2, headers={_NOTE: note} if note else None)
        self._channel.basic_publish("", queue, body, properties, mandatory=True)

    def _on_confirm(self, frame: Any) -> None:
        self._watch.confirmed()
        self._unconfirmed -= confirmed(frame.method, self._unconfirmed)
        if isinstance(frame.method, Basic.Nack):
            self._failed = exceptions.NackError([])

    def _on_return(self, *_: Any) -> None:
        self._failed = exceptions.ConsumerCancelled("the queue of a position is gone")

    def _on_close(self, _: Any, reason: Exception) -> None:
        self._failed = reason
