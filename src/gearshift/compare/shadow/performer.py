"""Hands copies to the handler, in a process of its own where nothing that it sends goes out.

``python -m gearshift.compare.shadow.performer PART-FILE``, ended by SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec

from gearshift.bus import open_bus
from gearshift.compare.probe import Probe, call, handler_of, place
from gearshift.compare.shadow.document import digests
from gearshift.compare.tape import Recorder
from gearshift.compare.worker import Site
from gearshift.config import PROFILE, REHEARSAL
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.rehearsal import digest, handling
from gearshift.worker import dispatch
from gearshift.worker.app import Handler
from gearshift.worker.event_loop import EventLoop

__all__ = ["MAX_RETRY_DELAY_S", "Part", "main"]

#: Retries come quicker than in earnest: a rehearsal is about what happens, not about when.
MAX_RETRY_DELAY_S = 0.2

_POLL_S = 0.1


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one performer is told.

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


class Performer:
    """One thread: a message at a time, as one of the service's workers."""

    def __init__(self, part: Part, recorder: Recorder) -> None:
        self._part = part
        self._recorder = recorder
        self._owned: frozenset[int] = frozenset()
        self._stopping = self._is_handling = False
        self._loop = EventLoop()

    def stop(self, *_: object) -> None:
        """End ``run``, from a signal: a handler that hangs is interrupted."""
        self._stopping = True
        if self._is_handling:
            raise KeyboardInterrupt

    def run(self, handler: Handler, consumer: Consumer[Any]) -> None:
        """Work until ``stop``."""
        self._handler = handler
        consumer.ready()
        self._note("ready")
        while not self._stopping:
            if consumer.partitions != self._owned:
                self._owned = consumer.partitions
                self._note("assign", partitions=tuple(sorted(self._owned)))
            for delivery in consumer.receive(timeout_s=_POLL_S):
                self._handle(delivery)

    def _handle(self, delivery: Delivery[Any]) -> None:
        seq = self._places[str(delivery.id)]
        key = None if delivery.key is None else digest(delivery.key)
        note = partial(self._note, seq=seq, key=key, attempt=delivery.attempt)
        note(
            "deliver",
            redelivered=delivery.redelivered,
            digests=digests(delivery.message),
            **place(delivery),
        )
        probe = _Copy(delivery, note, self._part.live)
        with handling(seq):
            self._is_handling = True
            ending = dispatch.run(partial(call, self._handler, probe), self._loop.wait)
            self._is_handling = False
        if ending.action == "ack":
            note("done", digests={"returned": _digest_of(ending.returned)})
        else:
            note("failed", what=_named(ending.error))
        if delivery.outcome is None:
            ending.settle(probe)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return msgspec.json.decode(Path(self._part.copies).read_bytes(), type=dict[str, int])

    def _note(self, kind: Any, **fields: Any) -> None:
        self._recorder.event(kind, self._part.name, **fields)


class _Copy(Probe):
    """A copy that says it is of the live channel; its retries do not wait long."""

    def __init__(self, delivery: Delivery[Any], note: Callable[..., None], live: str) -> None:
        super().__init__(delivery, note)
        self._live = live

    @property
    def channel(self) -> str:
        """See Delivery.channel."""
        return self._live

    def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None:
        """See Delivery.retry."""
        delay_s = None if delay_s is None else min(delay_s, MAX_RETRY_DELAY_S)
        super().retry(delay_s, reason=reason)


def main(file: str) -> None:
    """Work until SIGTERM. The environment holds the settings of the rehearsal's channel."""
    part = msgspec.json.decode(Path(file).read_bytes(), type=Part)
    performer = Performer(part, Recorder(Path(part.site.tape), part.site.origin_ns))
    signal.signal(signal.SIGTERM, performer.stop)
    with open_bus(part.site.config, profile=part.site.profile) as bus:
        # From here on, whatever bus the handler opens is a rehearsal's.
        os.environ |= {REHEARSAL: part.captured, PROFILE: part.site.profile}
        handler = handler_of(part.handler)
        with (
            bus.consumer(
                part.channel, value_type=handler.call.value_type, serial_keys=True
            ) as consumer,
            contextlib.suppress(KeyboardInterrupt),  # ``stop`` in the middle of a handler
        ):
            performer.run(handler, consumer)


def _named(error: BaseException | None) -> str:
    """An asked-for retry is only that: its delay may differ each time."""
    if isinstance(error, dispatch.Retry):
        return "Retry"
    return f"{type(error).__name__}: {error}"[:200]


def _digest_of(returned: object) -> str:
    """What was returned; of what is no plain value, only its type."""
    try:
        return digest(msgspec.json.encode(returned, order="deterministic"))
    except (TypeError, ValueError):
        return type(returned).__qualname__


if __name__ == "__main__":
    main(sys.argv[1])
