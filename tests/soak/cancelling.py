"""The kit's clients over ``gearshift.aio``, whose sends and receives are cancelled.

A call of the kit is several of theirs at once, as one that waits for a broker which is away says
little: 16 receives, or a send for each message of a batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from conformance import async_face

from gearshift.conformance.harness import Harness
from gearshift.conformance.history import History
from gearshift.errors import BackpressureError, GearshiftError, OutcomeUnknown
from gearshift.message import Message, Receipt, SendResult

__all__ = ["CancellingHarness", "Interrupter"]

T = TypeVar("T")

#: How long a call goes on that is cancelled, on average: half of them about as long as one takes,
#: the others longer than any but one that waits for a broker which is away. Seconds.
_SOON_S, _LATE_S = 0.004, 0.3

#: Receives of a consumer that wait at once.
_RECEIVES = 16


class _Cancelled(Exception):
    """A call was cancelled; its arguments are the notes that it left."""


@dataclass
class Interrupter:
    """Awaits coroutines, and cancels them at a random moment. On one event loop."""

    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)  #: calls, and cancelled ones

    async def call(self, what: str, call: Awaitable[T]) -> T:
        """The result of ``call``; raises what it raises, or _Cancelled."""
        self.counts[what] += 1
        task = asyncio.ensure_future(_told(call))
        await asyncio.sleep(0)  # it has begun
        mean_s = self.chance.choice((_SOON_S, _LATE_S))
        delay_s = self.chance.expovariate(1 / mean_s)
        timer = asyncio.get_running_loop().call_later(delay_s, task.cancel)
        try:
            return await task
        except _Cancelled:
            self.counts[f"{what} cancelled"] += 1
            raise
        finally:
            timer.cancel()


async def _told(call: Awaitable[T]) -> T:
    try:
        return await call
    except asyncio.CancelledError as cancelled:
        raise _Cancelled(*getattr(cancelled, "__notes__", ())) from None


class _Producer(async_face.Producer):
    def __init__(self, inner: Any, interrupter: Interrupter) -> None:
        super().__init__(inner)
        self._interrupter = interrupter
        self._is_each = False

    def send(self, message: Message, **options: Any) -> Receipt:
        """A cancelled one is refused or unknown, as its note says."""
        result = async_face.started(self._sent(message, options)).result()
        if isinstance(result, GearshiftError):
            raise result
        return result

    def send_many(self, messages: Sequence[Message], **options: Any) -> list[SendResult]:
        """Every other time a ``send`` for each of them."""

        self._is_each = not self._is_each
        send = self._each_sent if self._is_each else self._many_sent
        return async_face.started(send(messages, options)).result()

    async def _sent(self, message: Message, options: Mapping[str, Any]) -> SendResult:
        try:
            return await self._interrupter.call("send", self.inner.send(message, **options))
        except _Cancelled as cancelled:
            return _outcome(str(cancelled))
        except GearshiftError as error:
            return error

    async def _each_sent(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> list[SendResult]:
        return await asyncio.gather(*(self._sent(message, options) for message in messages))

    async def _many_sent(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> list[SendResult]:
        """Of a cancelled one nothing is known."""
        sending = self.inner.send_many(messages, raise_on_error=False, **options)
        try:
            return await self._interrupter.call("send_many", sending)
        except _Cancelled:
            return [OutcomeUnknown("cancelled")] * len(messages)


class _Consumer(async_face.Consumer):
    def __init__(self, inner: Any, interrupter: Interrupter) -> None:
        super().__init__(inner)
        self._interrupter = interrupter

    def receive(self, *arguments: Any, **options: Any) -> list[Any]:
        """What several bring; a cancelled one brings nothing, so it must have taken nothing."""
        found: list[Any] = []

        async def receive() -> None:
            call = self.inner.receive(*arguments, **options)
            with contextlib.suppress(_Cancelled):
                found.extend(await self._interrupter.call("receive", call))

        async def receive_all() -> None:
            ends = await asyncio.gather(
                *(receive() for _ in range(_RECEIVES)), return_exceptions=True
            )
            errors = [end for end in ends if end is not None]
            if errors and not found:
                raise errors[0]

        async_face.started(receive_all()).result()
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
