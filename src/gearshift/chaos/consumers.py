"""Consumers' drivers whose connections are lost, and whose messages come late."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import structs

from gearshift.capabilities import Known
from gearshift.chaos.injector import Injector
from gearshift.chaos.late import LateMessages
from gearshift.chaos.settings import Kind
from gearshift.driver import (
    LogDriver,
    LogEvents,
    Place,
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
    Start,
)
from gearshift.driver.helpers import Wrapper

__all__ = ["ChaosLogConsumer", "ChaosQueueConsumer"]


class _Session:
    """Receives for a consumer until its session is lost, while messages are in hand."""

    def __init__(self, injector: Injector) -> None:
        self.late = LateMessages(injector)
        self._injector = injector
        self._ends_at: float | None = None

    def require(self) -> None:
        """Raise ConnectionDropped once the session has ended."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._ends_at = None
            raise self._injector.drop(Kind.SESSION_LOST, "while messages are worked on")

    def receive(
        self, below: QueueDriver | LogDriver, max_messages: int, timeout_s: float
    ) -> Sequence[Received]:
        """As ``receive`` of a driver, from ``below``."""
        self.require()
        taken = self.late.take(max_messages)
        room = max(0, max_messages - len(taken) - len(self.late))
        wait_s = 0.0 if taken else self.late.wait_s(timeout_s)
        for received in below.receive(room, wait_s):
            if received.unstored is not None:
                self.late.put_back(taken)
                return [received]  # not a delivery: it comes without others
            self.late.add(self._as_told(received))
        taken += self.late.take(max_messages - len(taken))
        for _ in taken:
            if self._ends_at is None and self._injector.strikes(Kind.SESSION_LOST):
                self._ends_at = time.monotonic() + self._injector.seconds(Kind.SESSION_LOST)
        return taken

    def _as_told(self, received: Received) -> Received:
        injector = self._injector
        if not (
            received.redelivered and injector.side.has_lost and injector.strikes(Kind.UNFLAGGED)
        ):
            return received
        injector.tell(
            Kind.UNFLAGGED, f"message {received.message.id!r} comes as if for the first time"
        )
        is_exact = injector.situation.capabilities.attempt is Known.EXACT
        attempt = received.attempt if is_exact or received.attempt is None else 1
        return structs.replace(received, redelivered=False, attempt=attempt)


class ChaosQueueConsumer(Wrapper):
    """A QueueDriver. What was to be settled when the connection was lost is not.

    ``_in_hand`` are tokens and ids of messages, if it matters which of them come again; a token may
    be anything, so what finds it is which object it is.
    """

    def __init__(self, below: QueueDriver, injector: Injector) -> None:
        super().__init__(below)
        self._injector = injector
        self._session = _Session(injector)
        self._in_hand: dict[int, tuple[Any, str | None]] = {}

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        received = self._session.receive(self.inner, max_messages, timeout_s)
        if self._injector.why(Kind.RETURNS_LATE) is not None:
            self._in_hand |= {id(one.token): (one.token, one.message.id) for one in received}
        return received

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        self._session.require()
        for number, request in enumerate(requests):
            tells = request.settlement is not Settlement.RELEASE
            if tells and self._injector.strikes(Kind.LOST_ACK):
                if number:
                    self.inner.settle(requests[:number])
                lost = requests[number:]
                self._injector.side.unacked |= self._ids_of(lost)
                raise self._injector.drop(
                    Kind.LOST_ACK, f"with settlements on the way: {len(lost)}"
                )
        for request in requests if self._in_hand else ():
            self._forget(request)
        failures: Sequence[SettleFailure] = self.inner.settle(requests)
        return failures

    def _ids_of(self, requests: Sequence[SettleRequest]) -> set[str | None]:
        tokens = [one.token for one in requests if one.settlement is not Settlement.RELEASE]
        found = [self._in_hand.get(id(token)) for token in tokens]
        return {one[1] for one in found if one is not None and one[1] is not None}

    def _forget(self, request: SettleRequest) -> None:
        settled = id(request.token)
        if request.through and settled in self._in_hand:
            for earlier in list(self._in_hand):
                if earlier == settled:
                    break
                del self._in_hand[earlier]
        self._in_hand.pop(settled, None)


class ChaosLogConsumer(Wrapper):
    """A LogDriver. What was to be committed when the connection was lost is not."""

    def __init__(
        self, connect: Callable[[LogEvents], LogDriver], events: LogEvents, injector: Injector
    ) -> None:
        self._injector = injector
        self._session = _Session(injector)
        self._told: dict[int, int] = {}  # the broker's positions, where they are known
        told: Any = _Events(events, self._session.late, self._told)
        super().__init__(connect(told))

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        return self._session.receive(self.inner, max_messages, timeout_s)

    def commit(self, positions: Mapping[int, Place]) -> None:
        self._session.require()
        steps = sum(max(0, at - self._told.get(number, at)) for number, at in positions.items())
        if steps and self._injector.strikes(Kind.LOST_ACK):
            raise self._injector.drop(Kind.LOST_ACK, f"with settlements on the way: {steps}")
        self.inner.commit(positions)
        self._told.update({number: int(at) for number, at in positions.items()})

    def seek(self, start: Start) -> None:
        self._session.late.drop()
        self.inner.seek(start)


class _Events(Wrapper):
    """LogEvents on their way to core: what is held back of a partition goes with it."""

    def __init__(self, events: LogEvents, late: LateMessages, told: dict[int, int]) -> None:
        super().__init__(events)
        self._late = late
        self._told = told

    def assigned(
        self, partitions: Sequence[int], places: Mapping[int, Place] | None = None
    ) -> None:
        self._told.update({number: int(at) for number, at in (places or {}).items()})
        self.inner.assigned(partitions, places)

    def revoked(self, partitions: Sequence[int]) -> Mapping[int, Place]:
        self._late.drop(partitions)
        positions: Mapping[int, Place] = self.inner.revoked(partitions)
        return positions

    def lost(self, partitions: Sequence[int]) -> None:
        self._late.drop(partitions)
        self.inner.lost(partitions)
