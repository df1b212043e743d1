"""A steady load: threads send, others receive and ack, until the block ends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer, RecordingProducer
from gearshift.errors import Closed, GearshiftError, StaleDelivery
from gearshift.message import Receipt

__all__ = ["Load"]

#: So many that each partition of a stream gets some of them, whoever chooses the partition.
_KEYS = 32


class Load:
    """Sends to ``channel`` and settles what comes, through whatever happens to the broker.

    One producer sends message by message; with ``batch``, another sends so many at once.
    ``send_timeout_s`` is each send's deadline, ``work_s`` the time per delivery.
    """

    def __init__(
        self,
        kit: Kit,
        channel: str,
        *,
        members: int = 2,
        send_timeout_s: float | None = None,
        work_s: float = 0.0,
        prefetch: int = 20,
        batch: int = 0,
    ) -> None:
        self._kit = kit
        self._channel = channel
        self._send_timeout_s = send_timeout_s or kit.patience_s
        self._work_s = work_s
        self._batch = batch
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._producers = [kit.producer(channel) for _ in range(2 if batch else 1)]
        self._members = [kit.consumer(channel, prefetch=prefetch) for _ in range(members)]
        self._threads = [
            *[
                threading.Thread(target=work, args=(producer,), daemon=True)
                for producer, work in zip(
                    self._producers, (self._send, self._send_batches), strict=False
                )
            ],
            *[
                threading.Thread(target=self._work, args=(member,), daemon=True)
                for member in self._members
            ],
        ]

    def advance(self, count: int) -> None:
        """Wait for ``count`` more receipts, and for as many more messages to be settled."""
        receipts, acks = self._counts["receipts"] + count, self._counts["acks"] + count
        sending, receiving = f"sending to {self._channel}", f"receiving from {self._channel}"
        self._kit.until(lambda: self._counts["receipts"] >= receipts, f"{sending} does not go on")
        self._kit.until(lambda: self._counts["acks"] >= acks, f"{receiving} does not go on")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(self._send_timeout_s + 30.0)

    def _count(self, what: str, more: int) -> None:
        with self._lock:
            self._counts[what] += more

    def _send(self, producer: RecordingProducer) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                producer.send(key=f"k{number % _KEYS}", timeout_s=self._send_timeout_s)
            except GearshiftError:
                continue  # recorded; what counts is that it was told
            self._count("receipts", 1)
            time.sleep(0.002)

    def _send_batches(self, producer: RecordingProducer) -> None:
        keys = [f"k{number}" for number in range(_KEYS)]
        while not self._over.is_set():
            results = producer.send_many(self._batch, keys=keys, timeout_s=self._send_timeout_s)
            self._count("receipts", sum(isinstance(one, Receipt) for one in results))
            time.sleep(0.002 * self._batch)

    def _work(self, member: RecordingConsumer) -> None:
        while not self._over.is_set():
            try:
                deliveries = member.receive(10, timeout_s=0.1)
            except Closed:
                return
            for delivery in deliveries:
                time.sleep(self._work_s)
                try:
                    member.ack(delivery)
                except StaleDelivery:
                    continue  # recorded; it comes again
                self._count("acks", 1)
