"""huey's SqliteHuey with fsync: the storage below a task. It gives up a task as it reads it."""

from __future__ import annotations

from huey import SqliteHuey

from benchmarks.work import Load, Place, Sample, timed


def _storage(place: Place) -> SqliteHuey:
    return SqliteHuey(place.name, filename=place.url.removeprefix("sqlite://"), fsync=True).storage


def send(place: Place, load: Load) -> Sample:
    storage = _storage(place)

    def run() -> int:
        for _, body in load:
            storage.enqueue(body)
        return load.total

    return timed(run)


def left(place: Place) -> int:
    return int(_storage(place).queue_size())
