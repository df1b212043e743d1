"""Looking at a live channel: with a group of its own, so that nobody misses anything."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gearshift.bus import Bus
from gearshift.driver import Start, StartAt
from gearshift.errors import DeadlineExceeded
from gearshift.message import Message, Semantics, message_id

__all__ = ["Watched", "watch"]

#: Copies are held in memory, and the live broker's are the larger ones.
MAX_BYTES = 64 * 1024 * 1024

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Watched:
    """Messages of the live channel, each with an id; ``repeated`` came twice and is there once."""

    messages: tuple[Message, ...]
    repeated: int


def watch(
    bus: Bus,
    channel: str,
    *,
    start: Start,
    messages: int,
    seconds: float,
    progress: Callable[[int], None],
) -> Watched:
    """Up to ``messages`` within ``seconds``: a stream's from ``start``, a queue's as they come.

    Nothing is settled for anybody: the reader's group is its own and goes with it. Raises
    DeadlineExceeded if none came, and what ``Bus.consumer`` raises.
    """
    is_queue = bus.semantics(channel) is Semantics.QUEUE
    found: dict[str, Message] = {}
    logs: dict[int, list[Message]] = {}  # by partition; a queue is one
    repeated = size = 0
    with bus.consumer(
        channel,
        ephemeral=True,
        start=Start(StartAt.LATEST) if is_queue else start,
        prefetch=min(messages, 500),
        create=False,
    ) as reader:
        reader.ready()
        deadline = time.monotonic() + seconds
        while len(found) < messages and size < MAX_BYTES and time.monotonic() < deadline:
            progress(len(found))
            for delivery in reader.receive(timeout_s=_POLL_S):
                delivery.ack()  # for our own group only, which goes when we do
                message = delivery.message
                if message.id is None:
                    message = message.replace(id=message_id())
                assert message.id is not None
                if message.id in found:
                    repeated += 1
                    continue
                found[message.id] = message
                size += message.size
                partition = delivery.position.partition if delivery.position else 0
                logs.setdefault(partition, []).append(message)
    if not found:
        raise DeadlineExceeded(
            f"no message came within {seconds:g} s",
            hint="a queue shows only what is sent from now on: rehearse while the service works, "
            "or with a longer --seconds"
            if is_queue
            else "the stream is empty from there on: try an earlier --since",
            backend=bus.backend,
            channel=channel,
        )
    return Watched(tuple(_as_sent(logs.values())), repeated)


def _as_sent(logs: Iterable[Sequence[Message]]) -> Iterator[Message]:
    """All in one order: each partition's own, and among partitions by time, then by turns.

    A reader is given runs of one partition, whose keys would then meet one worker at a time.
    """
    placed = heapq.merge(*map(enumerate, logs), key=lambda one: (one[1].timestamp_ms or 0, one[0]))
    return (message for _, message in placed)
