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
from gearshift_rabbitmq.connection import Link, Rpc
from gearshift_rabbitmq.declaring import declare_queue, placed
from gearshift_rabbitmq.errors import is_missing
from gearshift_rabbitmq.stream.layout import Layout

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
    """Reads and commits positions of ``group`` over ``link``, on the thread that drives it."""

    def __init__(self, link: Link, layout: Layout, group: str) -> None:
        self._link = link
        self._layout = layout
        self._group = group
        self._failed: Exception | None = None
        self._unconfirmed: set[int] = set()
        self._number = 0
        self._committed: dict[int, tuple[bytes, str]] = {}  # of owned partitions, with its note
        self._told_at = self._confirmed_at = time.monotonic()
        self._times: dict[int, bytes] = {}  # where partitions begin whose offset is not known yet
        rpc = Rpc(link)
        self._channel = rpc.channel
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_return_callback(self._on_return)
        rpc("confirm_delivery", ack_nack_callback=self._on_confirm)

    def register(self) -> None:
        """Store the group's name: what it has in a place that nobody knew of would outlive its
        channel. Waits for the broker."""
        self._publish(self._layout.registry, self._group.encode())
        self.flush(5.0)

    def restart(self, partition: int) -> None:
        """Set it to the beginning of ``partition``, which is made anew. Waits for the broker."""
        self._ensure(self._layout.position(partition, self._group))
        self.commit({partition: Place(0)})
        self.flush(5.0)

    def read(self, partition: int) -> tuple[Start, Place] | None:
        """Where the group is; None if it has never been in that partition.

        Waits for one that is out to be read, and in vain if the first owner ever died before it had
        stored any.
        """
        queue = self._layout.position(partition, self._group)
        is_new = self._ensure(queue)
        deadline = time.monotonic() + (0.0 if is_new else _GIVEN_BACK_S)
        while (found := self._peek(queue)) is None and time.monotonic() < deadline:
            self._link.linger(0.1)
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
            self._publish(self._layout.position(partition, self._group), body, at.note)

    def keep(self) -> None:
        """Make sure, now and then, that commits are still stored. Never waits; raises TimeoutError.

        A node that is cut off from most of its cluster may go on serving its clients (see
        ``leader``); here it goes on with what it has of a stream. A commit that is repeated changes
        nothing, and such a node cannot confirm it.
        """
        if not self._link.has_other_nodes:
            return
        now = time.monotonic()
        if self._link.blocked is not None:
            self._confirmed_at = now
        elif self._unconfirmed and now - self._confirmed_at > _UNCONFIRMED_S:
            self._link.leave_node()
            raise TimeoutError(f"no commit was confirmed for {_UNCONFIRMED_S:g} s")
        elif self._committed and not self._unconfirmed and now - self._told_at > _REPEAT_S:
            partition = min(self._committed)
            self._publish(
                self._layout.position(partition, self._group), *self._committed[partition]
            )

    def forget(self, partition: int) -> None:
        """It is about to have another owner: nothing more is committed there."""
        self._committed.pop(partition, None)

    def flush(self, timeout_s: float) -> None:
        """Wait until the broker has everything. Raises what it refused, TimeoutError."""
        self._link.wait(lambda: self._failed or not self._unconfirmed, timeout_s, "commits")
        self.check()

    def check(self) -> None:
        """Raise what became of an earlier commit."""
        if self._failed is not None:
            raise self._failed

    def _ensure(self, queue: str) -> bool:
        """Make sure that the queue is there; True if it was not."""
        try:
            rpc = Rpc(self._link)
            rpc("queue_declare", queue=queue, passive=True)
            rpc.close()
            return False
        except exceptions.ChannelClosedByBroker as error:
            if not is_missing(error):
                raise
        declare_queue(self._link, queue, placed(_ARGUMENTS, self._layout.native))
        return True

    def _peek(self, queue: str) -> tuple[bytes, str] | None:
        """The queue's message and its note."""
        rpc = Rpc(self._link)
        answers: list[tuple[bytes, str] | None] = []

        def on_message(_: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
            rpc.channel.basic_reject(method.delivery_tag, requeue=True)
            answers.append((body, str((properties.headers or {}).get(_NOTE, ""))))

        rpc.channel.add_callback(lambda _: answers.append(None), [Basic.GetEmpty])
        rpc.channel.basic_get(queue, on_message)
        self._link.wait(lambda: answers or not rpc.channel.is_open, 5.0, "a position")
        rpc("queue_declare", queue=queue, passive=True)  # an answer: the rejection has arrived
        rpc.close()
        return answers[0] if answers else None

    def _publish(self, queue: str, body: bytes, note: str = "") -> None:
        self.check()
        self._told_at = time.monotonic()
        if not self._unconfirmed:
            self._confirmed_at = self._told_at
        self._number += 1
        self._unconfirmed.add(self._number)
        properties = BasicProperties(delivery_mode=2, headers={_NOTE: note} if note else None)
        self._channel.basic_publish("", queue, body, properties, mandatory=True)

    def _on_confirm(self, frame: Any) -> None:
        self._confirmed_at = time.monotonic()
        method = frame.method
        tag = method.delivery_tag
        done = {n for n in self._unconfirmed if n <= tag} if method.multiple else {tag}
        self._unconfirmed -= done
        if isinstance(method, Basic.Nack):
            self._failed = exceptions.NackError([])

    def _on_return(self, *_: Any) -> None:
        self._failed = exceptions.ConsumerCancelled("the queue of a position is gone")

    def _on_close(self, _: Any, reason: Exception) -> None:
        self._failed = reason
