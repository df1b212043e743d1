"""Failures that a test asks for, and the backend that has them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from gearshift import driver
from gearshift._core.publishing.batch import Batch
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift.driver import (
    AdminDriver,
    ChannelSpec,
    ConsumerSpec,
    LogDriver,
    LogEvents,
    OnOutcomes,
    Outcome,
    ProducerDriver,
    QueueDriver,
    Stored,
)
from gearshift.errors import ConnectionFailed, DeadlineExceeded, GearshiftError
from gearshift.message import Message

__all__ = ["Faults", "FaultyBackend", "FaultyBuffer"]


class Faults:
    """The failures that are to come. Any thread; ``_lock`` guards the counts."""

    def __init__(self) -> None:
        self.is_gone = False  # the broker
        self._lock = threading.Lock()
        self._unknown: Counter[tuple[str, bool]] = Counter()
        self._lost_acks: Counter[tuple[str, str]] = Counter()

    def require_broker(self) -> None:
        """Raise ConnectionFailed while the broker is gone."""
        if self.is_gone:
            raise ConnectionFailed("the test has taken the broker away")

    def lose_outcomes(self, channel: str, count: int, *, stored: bool) -> None:
        """The next ``count`` messages to ``channel`` are not confirmed."""
        with self._lock:
            self._unknown[channel, stored] += count

    def loses_outcome(self, channel: str) -> bool | None:
        """Whether the next message is stored, if it is not to be confirmed; else None."""
        with self._lock:
            for stored in (True, False):
                if self._unknown[channel, stored]:
                    self._unknown[channel, stored] -= 1
                    return stored
        return None

    def lose_acks(self, channel: str, group: str, count: int) -> None:
        """The next ``count`` settlements of ``group`` do not reach the broker."""
        with self._lock:
            self._lost_acks[channel, group] += count

    def loses_ack(self, channel: str, group: str) -> bool:
        """True if the settlement that was just made is to be lost."""
        with self._lock:
            lost = self._lost_acks[channel, group] > 0
            self._lost_acks[channel, group] -= lost
            return lost


class FaultyBackend(driver.Backend):
    """Drivers of the harness's one broker, which outlives the buses on it.

    ``on_stored`` is called for each message that was sent and is stored.
    """

    def __init__(
        self, broker: driver.Backend, faults: Faults, on_stored: Callable[[str, Message], None]
    ) -> None:
        self._broker = broker
        self._faults = faults
        self._on_stored = on_stored

    def admin(self) -> AdminDriver:
        self._faults.require_broker()
        return self._broker.admin()

    def producer(self, channel: ChannelSpec) -> ProducerDriver:
        self._faults.require_broker()
        producer = self._broker.producer(channel)
        return _Producer(channel.name, producer, self._faults, self._on_stored)

    def queue_consumer(self, spec: ConsumerSpec) -> QueueDriver:
        self._faults.require_broker()
        return self._broker.queue_consumer(spec)

    def log_consumer(self, spec: ConsumerSpec, events: LogEvents) -> LogDriver:
        self._faults.require_broker()
        return self._broker.log_consumer(spec, events)

    def classify(self, error: Exception) -> GearshiftError | None:
        return self._broker.classify(error)


class _Producer(ProducerDriver):
    """Stores each message for itself, so that each may fail for itself."""

    def __init__(
        self,
        channel: str,
        stored_by: ProducerDriver,
        faults: Faults,
        on_stored: Callable[[str, Message], None],
    ) -> None:
        self._channel = channel
        self._stored_by = stored_by
        self._faults = faults
        self._on_stored = on_stored

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        on_outcomes([self._outcome(number, one) for number, one in enumerate(messages)])

    def close(self, timeout_s: float) -> None:
        self._stored_by.close(timeout_s)

    def _outcome(self, number: int, message: Message) -> Outcome:
        try:
            self._faults.require_broker()
        except ConnectionFailed as error:
            return Outcome(number, Stored.NO, None, error)
        is_stored = self._faults.loses_outcome(self._channel)
        outcome = None if is_stored is False else self._store(message)
        if is_stored is not None:
            lost = DeadlineExceeded("the test has lost the broker's confirmation")
            return Outcome(number, Stored.UNKNOWN, None, lost)
        assert outcome is not None
        return replace(outcome, number=number)

    def _store(self, message: Message) -> Outcome:
        outcomes: list[Outcome] = []
        self._stored_by.submit([message], outcomes.extend)
        if outcomes[0].stored is Stored.YES:
            self._on_stored(self._channel, message)
        return outcomes[0]


class FaultyBuffer(PublishBuffer):
    """Nobody waits for a broker that a test has taken away: a send's deadline is over at once."""

    faults: Faults

    def put(self, batch: Batch, *, waits: bool = True, again: bool = False) -> None:
        if self.faults.is_gone:
            batch.deadline = min(batch.deadline, time.monotonic())
        super().put(batch, waits=waits, again=again)
