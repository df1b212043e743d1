"""Runs the handler on copies, in a process of its own where nothing that it sends goes out."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from gearshift._observe.process import read_job
from gearshift.compare.handlers import Compared, ObservedDelivery, running
from gearshift.compare.rehearsal.document import digests
from gearshift.compare.worker import ObservedWorker, Site
from gearshift.config import PROFILE, REHEARSAL
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.rehearsal import digest, handling
from gearshift.worker import dispatch

__all__ = ["MAX_RETRY_DELAY_S", "Job", "main"]

#: Retries come quicker than in earnest: a rehearsal is about what happens, not about when.
MAX_RETRY_DELAY_S = 0.2


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The job of one worker process.

    It takes messages from ``channel`` and lets ``handler`` believe that they come from ``live``.
    ``copies`` is a file with the place of each message id, written before the first is sent.
    """

    name: str
    channel: str
    live: str
    handler: str
    copies: str
    captured: str
    site: Site


class RehearsalWorker(ObservedWorker):
    """Handles a message at a time, as one of the service's workers."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.site.recorder(), job.name)
        self._job = job
        self._handler: Compared | None = None
        self._stopping = self._is_handling = False

    def stop(self, *_: object) -> None:
        """End ``run``, from a signal: a handler that hangs is interrupted."""
        self._stopping = True
        if self._is_handling:
            raise KeyboardInterrupt

    def run(self, handler: Compared, consumer: Consumer[Any]) -> None:
        """Work until ``stop``."""
        self._handler = handler
        self.work(consumer, lambda: self._stopping)

    def handle(self, delivery: Delivery[Any], consumer: Consumer[Any]) -> None:
        """See ObservedWorker."""
        assert self._handler is not None
        seq = self._places[str(delivery.id)]
        note = self.noting(delivery, seq, None if delivery.key is None else digest(delivery.key))
        note("deliver", digests=digests(delivery.message), **self.given(delivery))
        copy = _Copy(delivery, note, self._job.live)
        with handling(seq):
            self._is_handling = True
            ending = self._handler.run(copy)
            self._is_handling = False
        if ending.action == "ack":
            note("done", digests={"returned": _digest_of(ending.returned)})
        else:
            note("failed", what=_named(ending.error))
        if delivery.outcome is None:
            ending.settle(copy)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return msgspec.json.decode(Path(self._job.copies).read_bytes(), type=dict[str, int])


class _Copy(ObservedDelivery):
    """A copy that says it is of the live channel; its retries do not wait long."""

    def __init__(self, delivery: Delivery[Any], note: Callable[..., None], live: str) -> None:
        super().__init__(delivery, note)
        self.channel = live

    def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None:
        """See Delivery.retry."""
        delay_s = None if delay_s is None else min(delay_s, MAX_RETRY_DELAY_S)
        super().retry(delay_s, reason=reason)


def main() -> None:
    """Work until SIGTERM."""
    job = read_job(Job)
    worker = RehearsalWorker(job)
    signal.signal(signal.SIGTERM, worker.stop)
    with job.site.access.open() as bus:
        # From here on, whatever bus the handler opens is a rehearsal's.
        os.environ |= {REHEARSAL: job.captured, PROFILE: job.site.access.profile}
        with (
            running(job.handler, job.site.access, Path(job.captured), worker.loop) as handler,
            bus.consumer(
                job.channel, value_type=handler.call.value_type, serial_keys=True
            ) as consumer,
            contextlib.suppress(KeyboardInterrupt),  # ``stop`` in the middle of a handler
        ):
            worker.run(handler, consumer)


def _named(error: BaseException | None) -> str:
    """An asked-for retry is only that: its delay may differ each time."""
    if isinstance(error, dispatch.Retry):
        return "Retry"
    return f"{type(error).__name__}: {error}"[:200]


def _digest_of(returned: object) -> str:
    """A digest of a returned value; of one that is not plain, only its type."""
    try:
        return digest(msgspec.json.encode(returned, order="deterministic"))
    except (TypeError, ValueError):
        return type(returned).__qualname__
