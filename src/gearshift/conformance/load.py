"""A steady load: one thread sends, others receive and ack, until the block ends."""

from __future__ import annotations

import threading
import time
from typing import Any

from gearshift.conformance.history import Phase
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer
from gearshift.errors import Closed, GearshiftError, StaleDelivery

__all__ = ["Load"]

#: So many that each partition of a stream gets some of them, whoever chooses the partition.
_KEYS = 32


class Load:
    """Sends to ``channel`` and settles what comes, through whatever happens to the broker.

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
    ) -> None:
        self._kit = kit
        self._channel = channel
        self._send_timeout_s = send_timeout_s or kit.patience_s
        self._work_s = work_s
        self._over = threading.Event()
        self._producer = kit.producer(channel)
        self._members = [kit.consumer(channel, prefetch=prefetch) for _ in range(members)]
        self._threads = [
            threading.Thread(target=self._send, daemon=True),
            *[
                threading.Thread(target=self._work, args=(member,), daemon=True)
                for member in self._members
            ],
        ]

    def advance(self, count: int) -> None:
        """Wait for ``count`` more receipts, and for as many more messages to be settled."""
        sent, settled = self._sent(), self._settled()
        self._kit.until(lambda: self._sent() >= sent + count, "sending does not go on")
        self._kit.until(lambda: self._settled() >= settled + count, "receiving does not go on")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(self._send_timeout_s + 30.0)

    def _sent(self) -> int:
        return len(self._kit.history.published(self._channel, Phase.OK))

    def _settled(self) -> int:
        return len(self._kit.history.finished(self._channel, "g"))

    def _send(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                self._producer.send(key=f"k{number % _KEYS}", timeout_s=self._send_timeout_s)
            except GearshiftError:
                continue  # recorded; what counts is that it was told
            time.sleep(0.002)

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
