"""The producer driver: one thread that sends pipelines and waits for their answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from gearshift.driver import OnOutcomes, Outcome, ProducerDriver, Stored
from gearshift.driver.helpers import OpenCount
from gearshift.errors import UnknownChannel
from gearshift.message import Message
from gearshift_redis.errors import was_refused
from gearshift_redis.layout import Layout
from gearshift_redis.scripts import Scripts, add_to, load
from gearshift_redis.wire import fields_of

__all__ = ["Producer"]

#: Of one pipeline: what is waited for at once.
_MAX_MESSAGES = 500
_MAX_BYTES = 4 * 1024 * 1024


class _Batch(NamedTuple):
    messages: Sequence[Message]
    on_outcomes: OnOutcomes


class Producer(ProducerDriver):
    """An adopted stream is added to directly, other channels by a script."""

    def __init__(self, client: Redis, layout: Layout) -> None:
        self._client = client
        self._layout = layout
        self._publish = Scripts(client).publish
        load(client, self._publish)
        self._batches: SimpleQueue[_Batch | None] = SimpleQueue()
        self._open = OpenCount()
        self._heard_at = 0.0  # while there is something unanswered
        self._failed: Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="gearshift-redis", daemon=True)
        self._thread.start()

    @property
    def heard_at(self) -> float | None:
        """None while no answer is waited for, or has failed to come."""
        return self._heard_at if self._open or self._failed is not None else None

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        if not self._open:
            self._heard_at = time.monotonic()
        self._open.add(len(messages))
        self._batches.put(_Batch(messages, on_outcomes))

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        connection: Any = self._client.connection
        if not self._open.wait(timeout_s):
            self._failed = self._failed or ConnectionAbortedError("closed before the answer came")
            if connection is not None:
                connection.disconnect()  # ends the wait for an answer
        self._batches.put(None)
        self._thread.join()
        self._client.close()

    # ── on the thread ──

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            for start, part in _parts(batch.messages):
                outcomes = self._send(start, part)
                batch.on_outcomes(outcomes)
                if self._failed is None:
                    self._heard_at = time.monotonic()
                self._open.remove(len(outcomes))

    def _send(self, start: int, messages: Sequence[Message]) -> list[Outcome]:
        numbers = range(start, start + len(messages))
        if self._failed is not None:
            return [Outcome(number, Stored.NO, error=self._failed) for number in numbers]
        pipeline: Any = self._client.pipeline(transaction=False)
        for message in messages:
            fields = fields_of(message, self._layout.body_field)
            if self._layout.adopted is not None:
                pipeline.execute_command("XADD", self._layout.adopted, "NOMKSTREAM", "*", *fields)
            else:
                arguments = (self._layout.streams, *fields)
                add_to(pipeline, self._publish, [self._layout.groups], arguments)
        try:
            answers = pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            self._failed = error
            return [Outcome(number, Stored.UNKNOWN, error=error) for number in numbers]
        return [_outcome(number, answer) for number, answer in zip(numbers, answers, strict=True)]


def _outcome(number: int, answer: object) -> Outcome:
    if isinstance(answer, Exception):
        stored = Stored.NO if was_refused(answer) else Stored.UNKNOWN
        return Outcome(number, stored, error=answer)
    if not answer:  # a channel is there as long as it has a group
        gone = UnknownChannel("it does not exist any more", hint="declare it, or check native")
        return Outcome(number, Stored.NO, error=gone)
    return Outcome(number, Stored.YES)


def _parts(messages: Sequence[Message]) -> Iterator[tuple[int, Sequence[Message]]]:
    start = size = 0
    for number, message in enumerate(messages):
        if number > start and (number - start >= _MAX_MESSAGES or size >= _MAX_BYTES):
            yield start, messages[start:number]
            start, size = number, 0
        size += message.size
    if start < len(messages):
        yield start, messages[start:]
