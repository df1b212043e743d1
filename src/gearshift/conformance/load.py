"""A steady load: threads send, others receive and ack, until the block ends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from gearshift._observe.threads import working
from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer, RecordingProducer
from gearshift.errors import GearshiftError
from gearshift.message import Receipt

__all__ = ["AFTER", "BEFORE", "Load", "under_load"]

#: Messages before a fault: enough for the broker to have settled down after the declaration.
BEFORE = 300
AFTER = 100

#: So many that each partition of a stream gets some of them, whoever chooses the partition.
_KEYS = 32
_PREFETCH = 20


class Load:
    """Sends to ``channel`` and settles what comes, through whatever happens to the broker.

    One producer sends message by message; with ``batch``, another sends so many at once.
    ``send_timeout_s`` is each send's deadline, ``work_s`` the time per delivery.

    State: how many receipts and acks there are, guarded by the lock.
    """

    def __init__(
        self,
        kit: Kit,
        channel: str,
        *,
        members: int = 2,
        send_timeout_s: float | None = None,
        work_s: float = 0.0,
        batch: int = 0,
    ) -> None:
        self._kit = kit
        self.channel = channel
        self._send_timeout_s = send_timeout_s or kit.patience_s
        self._work_s = work_s
        self._batch = batch
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._producers = [kit.producer(channel) for _ in range(2 if batch else 1)]
        self._members = [kit.consumer(channel, prefetch=_PREFETCH) for _ in range(members)]
        self._running = ExitStack()

    def advance(self, count: int) -> None:
        """Wait for ``count`` more receipts, and for as many more messages to be settled."""
        receipts, acks = self._counts["receipts"] + count, self._counts["acks"] + count
        sending, receiving = f"sending to {self.channel}", f"receiving from {self.channel}"
        self._kit.until(lambda: self._counts["receipts"] >= receipts, f"{sending} does not go on")
        self._kit.until(lambda: self._counts["acks"] >= acks, f"{receiving} does not go on")

    def __enter__(self) -> Load:
        pairs = zip(self._producers, (self._send, self._send_batches), strict=False)
        works = [partial(send, producer) for producer, send in pairs]
        works += [partial(self._work, member) for member in self._members]
        self._running.enter_context(working(*works, timeout_s=self._send_timeout_s + 30.0))
        return self

    def __exit__(self, *raised: Any) -> None:
        self._running.__exit__(*raised)

    def _count(self, what: str, more: int) -> None:
        with self._lock:
            self._counts[what] += more

    def _send(self, producer: RecordingProducer, stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                producer.send(key=f"k{number % _KEYS}", timeout_s=self._send_timeout_s)
            except GearshiftError:
                continue  # recorded; what counts is that it was told
            self._count("receipts", 1)
            time.sleep(0.002)

    def _send_batches(self, producer: RecordingProducer, stop: threading.Event) -> None:
        keys = [f"k{number}" for number in range(_KEYS)]
        while not stop.is_set():
            results = producer.send_many(self._batch, keys=keys, timeout_s=self._send_timeout_s)
            self._count("receipts", sum(isinstance(one, Receipt) for one in results))
            time.sleep(0.002 * self._batch)

    def _work(self, member: RecordingConsumer, stop: threading.Event) -> None:
        member.work(
            stop, before=lambda: time.sleep(self._work_s), after=lambda: self._count("acks", 1)
        )


@contextmanager
def under_load(
    kit: Kit, channel: str = "", *, before: int = BEFORE, after: int = AFTER, **options: Any
) -> Iterator[Load]:
    """Run the block under load on ``channel``, or on a fresh one, then verify it.

    The load has made ``before`` messages of progress when the block begins, and makes ``after``
    more when it ends. ``options`` are those of Load.
    """
    channel = channel or kit.channel()
    with Load(kit, channel, **options) as load:
        load.advance(before)
        yield load
        load.advance(after)
    kit.verify(channel)
