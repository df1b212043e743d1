"""persist-queue's SQLiteAckQueue."""

from __future__ import annotations

from persistqueue import SQLiteAckQueue

from benchmarks.work import Place, Received, Sample, load, timed


def _queue(place: Place) -> SQLiteAckQueue:
    return SQLiteAckQueue(place.url.removeprefix("sqlite://") + ".persist", name=place.name)


def send(place: Place, total: int) -> Sample:
    queue = _queue(place)

    def run() -> int:
        for _, body in load(place, total):
            queue.put(body)
        return total

    return timed(run)


def receive(place: Place, total: int) -> Sample:
    queue = _queue(place)
    received = Received(total)
    while not received.complete:
        body = queue.get(block=False)
        received.add(body)
        queue.ack(body)
    return received.sample()


def left(place: Place) -> int:
    return int(_queue(place).size)
