"""Sending in a trial: each message, its receipt or its refusal is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TypeAlias

from gearshift.bus import Bus
from gearshift.compare.event_log import Recorder
from gearshift.errors import InvalidMessage, NotSupported
from gearshift.message import Message, Receipt
from gearshift.producer import Producer

__all__ = ["Sent", "send"]

#: A message, its ``seq`` and the key to record.
Sent: TypeAlias = tuple[Message, int, str | None]


def send(
    bus: Bus,
    producer: Producer,
    messages: Iterable[Sent],
    recorder: Recorder,
    per_s: float | None = None,
) -> None:
    """Submit ``messages``, at most ``per_s``; all outcomes are there once ``producer`` is closed.

    One that cannot be sent here is recorded as refused.
    """
    started = time.monotonic()
    for number, (message, seq, key) in enumerate(messages):
        if per_s is not None:
            time.sleep(max(0.0, started + number / per_s - time.monotonic()))
        _submit(bus, producer, message, seq, key, recorder)


def _submit(
    bus: Bus, producer: Producer, message: Message, seq: int, key: str | None, recorder: Recorder
) -> None:
    recorder.event("send", "producer", seq=seq, key=key)
    sent_ns = time.monotonic_ns()

    def refused(error: BaseException) -> None:
        what = bus.config.masked(f"{type(error).__name__}: {error}")
        recorder.event("refused", "producer", seq=seq, key=key, what=what)

    def resolved(future: Future[Receipt]) -> None:
        error = future.exception()
        if error is not None:
            refused(error)
            return
        taken = round((time.monotonic_ns() - sent_ns) / 1e6, 3)
        recorder.event("receipt", "producer", seq=seq, key=key, ms_taken=taken)

    try:
        producer.submit(message).add_done_callback(resolved)
    except (InvalidMessage, NotSupported) as error:
        refused(error)
