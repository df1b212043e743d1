"""litequeue with synchronous=FULL, so that what returned is stored, as with the others."""

from __future__ import annotations

from pathlib import Path

from litequeue import LiteQueue

from benchmarks.work import Load, Place, Received, Sample, timed


def _queue(place: Place) -> LiteQueue:
    queue = LiteQueue(Path(place.url.removeprefix("sqlite://")), queue_name=place.name)
    queue.conn.execute("PRAGMA synchronous = FULL")
    return queue


def send(place: Place, load: Load) -> Sample:
    queue = _queue(place)

    def run() -> int:
        for _, body in load:
            queue.put(body.decode())
        return load.total

    return timed(run)


def receive(place: Place, load: Load) -> Sample:
    queue = _queue(place)
    received = Received(load.total)
    while (message := queue.pop()) is not None:
        received.add(message.data.encode())
        queue.done(message.message_id)
    return received.sample()


def left(place: Place) -> int:
    return int(_queue(place).qsize())
