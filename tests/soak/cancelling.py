"""The kit's clients over ``gearshift.aio``, half of whose sends and receives are cancelled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from conformance import async_face

from gearshift.conformance.harness import Harness
from gearshift.conformance.history import History
from gearshift.errors import BackpressureError, GearshiftError, OutcomeUnknown, SendFailed
from gearshift.message import Message, Receipt, SendResult

__all__ = ["CancellingHarness", "Interrupter"]

T = TypeVar("T")

#: How long a call goes on that is cancelled, on average: about as long as one takes. Seconds.
_MEAN_S = 0.004


class _Cancelled(Exception):
    """A call was cancelled; its arguments are the notes that it left."""


@dataclass
class Interrupter:
    """Calls coroutines, and cancels half of them at a random moment. Any thread."""

    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)  #: calls, and cancelled ones

    def call(self, what: str, call: Awaitable[T]) -> T:
        """The result of ``call``; raises what it raises, or _Cancelled. Blocks."""
        return async_face.started(self._call(what, call)).result()

    async def _call(self, what: str, call: Awaitable[T]) -> T:
        self.counts[what] += 1
        task = asyncio.ensure_future(_told(call))
        await asyncio.sleep(0)  # it has begun
        if self.chance.random() < 0.5:
            delay_s = self.chance.expovariate(1 / _MEAN_S)
            asyncio.get_running_loop().call_later(delay_s, task.cancel)
        try:
            return await task
        except _Cancelled:
            self.counts[f"{what} cancelled"] += 1
            raise


async def _told(call: Awaitable[T]) -> T:
    try:
        return await call
    except asyncio.CancelledError as cancelled:
        raise _Cancelled(*getattr(cancelled, "__notes__", ())) from None


class _Producer(async_face.Producer):
    def __init__(self, inner: Any, interrupter: Interrupter) -> None:
        super().__init__(inner)
        self._interrupter = interrupter

    def send(self, message: Message, **options: Any) -> Receipt:
        """A cancelled one is refused or unknown, as its note says."""
        try:
            return self._interrupter.call("send", self.inner.send(message, **options))
        except _Cancelled as cancelled:
            raise _outcome(str(cancelled)) from None

    def send_many(self, messages: Sequence[Message], **options: Any) -> list[SendResult]:
        """Of a cancelled one nothing is known."""
        try:
            return self._interrupter.call("send_many", self.inner.send_many(messages, **options))
        except _Cancelled:
            raise SendFailed([OutcomeUnknown("cancelled")] * len(messages)) from None


class _Consumer(async_face.Consumer):
    def __init__(self, inner: Any, interrupter: Interrupter) -> None:
        super().__init__(inner)
        self._interrupter = interrupter

    def receive(self, *arguments: Any, **options: Any) -> list[Any]:
        """A cancelled one brings nothing, so it must have taken nothing."""
        try:
            found = self._interrupter.call("receive", self.inner.receive(*arguments, **options))
        except _Cancelled:
            return []
        return [async_face.Awaited(one) for one in found]


class _Bus(async_face.AsyncBus):
    def __init__(self, bus: Any, interrupter: Interrupter) -> None:
        super().__init__(bus)
        self._interrupter = interrupter

    def producer(self, *arguments: Any, **options: Any) -> _Producer:
        return _Producer(super().producer(*arguments, **options).inner, self._interrupter)

    def consumer(self, *arguments: Any, **options: Any) -> _Consumer:
        return _Consumer(super().consumer(*arguments, **options).inner, self._interrupter)


@dataclass(frozen=True, kw_only=True)
class CancellingHarness(async_face.AsyncHarness):
    """A harness whose clients are coroutines that are cancelled."""

    interrupter: Interrupter

    @classmethod
    def of(cls, harness: Harness, interrupter: Interrupter) -> CancellingHarness:
        """``harness`` with such clients."""
        fields = {name: getattr(harness, name) for name in Harness.__dataclass_fields__}
        return cls(**fields, interrupter=interrupter)

    def connect(
        self, channels: Mapping[str, Mapping[str, object]], history: History | None = None
    ) -> Any:
        return _Bus(Harness.connect(self, channels, history), self.interrupter)


def _outcome(note: str) -> GearshiftError:
    """What is known of a cancelled send."""
    is_out = "was handed over" in note and "was not" not in note
    return OutcomeUnknown(note) if is_out else BackpressureError(note or "cancelled")
