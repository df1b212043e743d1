"""A queue consumer that nobody else knows of: reads the log from now on, without any group."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import structs

from gearshift.driver import (
    LogEvents,
    Place,
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
)
from gearshift_kafka.stream.reader import StreamReader

__all__ = ["EphemeralQueueConsumer"]

log = logging.getLogger("gearshift.kafka")


class _Events(LogEvents):
    """LogEvents that logs what retention has deleted and ignores the rest."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None: ...

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        return {}

    def lost(self, partitions: Sequence[int]) -> None: ...

    def skipped(self, partition: int, count: int) -> None:
        log.warning(
            "channel %r, partition %d: %d messages were deleted by retention before this consumer "
            "could read them", self._channel, partition, count,
        )  # fmt: skip


class EphemeralQueueConsumer(QueueDriver):
    """One thread, but for ``wake``.

    What it receives is its own, so retries wait in its memory.
    """

    def __init__(self, channel: str, read: Callable[[LogEvents], StreamReader]) -> None:
        self._reader = read(_Events(channel))
        self._unsettled: dict[object, Received] = {}
        self._due: list[tuple[float, int, Received]] = []
        self._tie_breaker = itertools.count()

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        received: list[Received] = []
        now = time.monotonic()
        while self._due and self._due[0][0] <= now and len(received) < max_messages:
            received.append(heapq.heappop(self._due)[2])
        if not received:
            wait_s = max(0.0, min([timeout_s, *(due - now for due, _, _ in self._due[:1])]))
            fresh = self._reader.receive(max_messages, wait_s)
            received = [
                structs.replace(one, position=None, attempt=1, redelivered=False) for one in fresh
            ]
        self._unsettled |= {one.token: one for one in received}
        return received

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        for request in requests:
            one = self._unsettled.pop(request.token)
            if request.settlement in (Settlement.RETRY, Settlement.RELEASE):
                worked_on = request.settlement is Settlement.RETRY
                again = structs.replace(
                    one, attempt=(one.attempt or 1) + worked_on, redelivered=True
                )
                due = time.monotonic() + request.delay_s
                heapq.heappush(self._due, (due, next(self._tie_breaker), again))
        return ()

    @property
    def heard_at(self) -> float:
        return self._reader.heard_at

    def wake(self) -> None:
        self._reader.wake()

    def close(self, timeout_s: float) -> None:
        self._reader.close(timeout_s)
