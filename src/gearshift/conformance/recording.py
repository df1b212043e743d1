"""A producer and a consumer that write down everything they do. Any thread."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

from gearshift.bus import Bus
from gearshift.conformance.history import Event, History, Kind, Phase, fingerprint, key_text, place
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import Start
from gearshift.errors import (
    Closed,
    DeadlineExceeded,
    GearshiftError,
    OutcomeUnknown,
    SendFailed,
    StaleDelivery,
)
from gearshift.message import Key, Message, Receipt, SendResult
from gearshift.producer import Producer

__all__ = ["RecordingConsumer", "RecordingProducer", "payload"]

_EVERY_BYTE = bytes(range(256))


def payload(who: str, sequence: int) -> bytes:
    """A body that tells who made it and holds every byte there is."""
    return f"{who}/{sequence}\n".encode() + _EVERY_BYTE


class RecordingProducer:
    """Sends numbered messages; ``who`` names it in the history."""

    def __init__(self, producer: Producer, history: History, who: str) -> None:
        self.producer = producer
        self.who = who
        self._history = history
        self._numbers = itertools.count()
        self._sent: dict[str | None, int] = {}  # numbers by id

    def message(self, value: Any = ..., *, key: Key | None = None, **fields: Any) -> Message:
        """The next message, unsent: ``value`` or a body that holds every byte."""
        number = next(self._numbers)
        body = payload(self.who, number) if value is ... else value
        message = self.producer.message(body, key=key, **fields)
        self._sent[message.id] = number
        self._record(message, Phase.INVOKE)
        return message

    def send(
        self, value: Any = ..., *, timeout_s: float = 30.0, key: Key | None = None, **fields: Any
    ) -> Receipt:
        """As Producer.send; what it raises is recorded."""
        message = self.message(value, key=key, **fields)
        try:
            receipt = self.producer.send(message, timeout_s=timeout_s)
        except GearshiftError as error:
            self.resolve(message, error)
            raise
        self.resolve(message, receipt)
        return receipt

    def send_many(
        self, count: int, *, keys: Iterable[str | None] = (None,), timeout_s: float = 60.0
    ) -> list[SendResult]:
        """``count`` messages, ``keys`` in turn; results as of Producer.send_many. Never raises
        SendFailed."""
        turns = itertools.cycle(keys)
        messages = [self.message(key=next(turns)) for _ in range(count)]
        try:
            results = self.producer.send_many(messages, timeout_s=timeout_s)
        except SendFailed as failed:
            results = failed.results
        for message, result in zip(messages, results, strict=True):
            self.resolve(message, result)
        return results

    def resolve(self, message: Message, result: SendResult) -> None:
        """Record how the send of ``message`` ended."""
        if isinstance(result, Receipt):
            note = "resent" if result.resent else ""
            self._record(message, Phase.OK, position=place(result.position), note=note)
        else:
            unknown = isinstance(result, OutcomeUnknown)
            self._record(message, Phase.INFO if unknown else Phase.FAIL, note=str(result))

    def _record(self, message: Message, phase: Phase, **more: Any) -> None:
        self._history.add(
            Event(
                kind=Kind.PUBLISH,
                phase=phase,
                who=self.who,
                channel=self.producer.channel,
                id=message.id,
                key=key_text(message.key),
                sequence=self._sent.get(message.id),
                digest=fingerprint(message),
                **more,
            )
        )

    def close(self) -> None:
        """As Producer.close."""
        self.producer.close()


class RecordingConsumer:
    """One member of a group; settle through it, so that the history knows."""

    def __init__(
        self, bus: Bus, channel: str, group: str, history: History, who: str, **options: Any
    ) -> None:
        self.who = who
        self._history = history
        self._lock = threading.Lock()
        self._untold: list[Event] = []
        self._where = {"who": who, "channel": channel, "group": group}
        self._record(Kind.OPEN, prefetch=options.get("prefetch"))
        self.consumer: Consumer[Any] = bus.consumer(channel, group=group, **options)

    def receive(self, max_messages: int = 1, *, timeout_s: float) -> list[Delivery[Any]]:
        """As Consumer.receive."""
        deliveries = self.consumer.receive(max_messages, timeout_s=timeout_s)
        for delivery in deliveries:
            self._record(
                Kind.DELIVER,
                id=delivery.id,
                key=key_text(delivery.key),
                digest=fingerprint(delivery.message),
                attempt=delivery.attempt,
                redelivered=delivery.redelivered,
                position=place(delivery.position),
            )
        return deliveries

    def ack(self, delivery: Delivery[Any]) -> None:
        """As Delivery.ack."""
        self._settle(delivery, "ack")

    def retry(self, delivery: Delivery[Any], delay_s: float | None = None) -> None:
        """As Delivery.retry."""
        self._settle(delivery, "retry", delay_s)

    def reject(self, delivery: Delivery[Any], reason: str = "rejected") -> None:
        """As Delivery.reject."""
        self._settle(delivery, "reject", reason)

    def _settle(self, delivery: Delivery[Any], action: str, *arguments: Any) -> None:
        begun = self._record(Kind.SETTLE, phase=Phase.INVOKE, id=delivery.id, action=action)
        try:
            getattr(delivery, action)(*arguments)
        except StaleDelivery:
            self._record(Kind.SETTLE, phase=Phase.FAIL, id=delivery.id, action=action)
            raise
        if delivery.outcome != action:  # a retry that had used up its attempts
            action = str(delivery.outcome)
            begun = self._record(Kind.SETTLE, phase=Phase.INVOKE, id=delivery.id, action=action)
        with self._lock:
            self._untold.append(begun)

    def work(
        self,
        stop: threading.Event,
        *,
        batch: int = 10,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        """Ack what comes until ``stop`` is set; call ``before`` and ``after`` with each ack."""
        with contextlib.suppress(Closed):
            while not stop.is_set():
                for delivery in self.receive(batch, timeout_s=0.1):
                    before()
                    with contextlib.suppress(StaleDelivery):  # recorded; it comes again
                        self.ack(delivery)
                        after()

    def seek(self, start: Start) -> None:
        """As Consumer.seek."""
        self._record(Kind.SEEK)
        self.consumer.seek(start)

    def flush(self) -> bool:
        """As Consumer.flush, but returns False instead of raising when not in time."""
        with self._lock:
            told, self._untold = self._untold, []
        try:
            self.consumer.flush()
        except DeadlineExceeded:
            return False
        for event in told:
            self._record(Kind.SETTLE, phase=Phase.OK, id=event.id, action=event.action)
        return True

    def close(self) -> list[str | None]:
        """As Consumer.close."""
        if self.consumer.closed:
            return []
        self.flush()
        self._record(Kind.CLOSE, phase=Phase.INVOKE)
        unsettled = self.consumer.close()
        self._record(Kind.CLOSE)
        return unsettled

    def _record(self, kind: Kind, **fields: Any) -> Event:
        event = Event(kind=kind, **(self._where | fields))
        self._history.add(event)
        return event

    def __enter__(self) -> RecordingConsumer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
