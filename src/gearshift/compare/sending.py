"""Sending in a trial: each message, its receipt or its refusal is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from gearshift.compare.event_log import Recorder
from gearshift.errors import InvalidMessage, NotSupported
from gearshift.message import Message, Receipt
from gearshift.producer import Producer

__all__ = ["RecordedSender"]


class RecordedSender:
    """Submits messages; all outcomes are recorded once ``producer`` is closed. One thread.

    ``masked`` hides secrets in the text of an error.
    """

    def __init__(
        self, producer: Producer, recorder: Recorder, masked: Callable[[str], str]
    ) -> None:
        self._producer = producer
        self._recorder = recorder
        self._masked = masked

    def submit(self, message: Message, seq: int, key: str | None) -> None:
        """Submit ``message``; one that cannot be sent here is recorded as refused."""
        self._recorder.event("send", "producer", seq=seq, key=key)
        sent_ns = time.monotonic_ns()

        def refused(error: BaseException) -> None:
            what = self._masked(f"{type(error).__name__}: {error}")
            self._recorder.event("refused", "producer", seq=seq, key=key, what=what)

        def resolved(future: Future[Receipt]) -> None:
            error = future.exception()
            if error is not None:
                refused(error)
                return
            taken = round((time.monotonic_ns() - sent_ns) / 1e6, 3)
            self._recorder.event("receipt", "producer", seq=seq, key=key, ms_taken=taken)

        try:
            self._producer.submit(message).add_done_callback(resolved)
        except (InvalidMessage, NotSupported) as error:
            refused(error)
