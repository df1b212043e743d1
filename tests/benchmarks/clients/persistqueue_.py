"""persist-queue's SQLiteAckQueue."""

from __future__ import annotations

from persistqueue import SQLiteAckQueue

from benchmarks.work import Load, Place, Received, Sample, timed


def _queue(place: Place) -> SQLiteAckQueue:
    return SQLiteAckQueue(place.url.removeprefix("sqlite://") + ".persist", name=place.name)


def send(place: Place, load: Load) -> Sample:
    queue = _queue(place)

    def run() -> int:
        for _, body in load:
            queue.put(body)
        return load.total

    return timed(run)


def receive(place: Place, load: Load) -> Sample:
    queue = _queue(place)
    received = Received(load.total)
    while not received.complete:
        body = queue.get(block=False)
        received.add(body)
        queue.ack(body)
    return received.sample()


def left(place: Place) -> int:
    return int(_queue(place).size)
