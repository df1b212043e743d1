"""The sending side of a channel, awaited."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Self, Unpack, cast

from gearshift import producer as sync
from gearshift._core.publishing.batch import Batch
from gearshift._core.publishing.window import TICK_S
from gearshift.aio.loops import Waker, running_loop, weakly
from gearshift.aio.parcels import GatheredParcel, Parcel
from gearshift.errors import BackpressureError, GearshiftError, SendFailed
from gearshift.hooks.awaited import AroundSends, AwaitedHooks
from gearshift.message import Fields, Key, Message, Receipt, SendResult
from gearshift.producer import CHUNK, DEFAULT_TIMEOUT_S, Prepared

__all__ = ["Producer"]


class Producer:
    """Sends to one channel. Made by ``Bus.producer``.

    Its methods are called on the event loop on which it was made. A send that returned is stored by
    the broker. What tasks send in one turn of the loop leaves together. What is in flight is
    bounded; a full window, or a broker that is away, is awaited until the deadline.

    A send that is cancelled says in a note of its CancelledError whether the message was handed
    over: then it may be stored or not.
    """

    def __init__(self, producer: sync.Producer, around: AwaitedHooks | None) -> None:
        self._producer = producer
        self._awaited = around  # what plugins await around a send
        self._buffer = producer._buffer
        self._loop = running_loop()
        self._waker = Waker(self._loop)
        self._parcels: deque[Parcel] = deque()  # not handed over, in order
        self._is_due = False  # _hand_over will be called
        self._timer: asyncio.TimerHandle | None = None
        self._listener = weakly(self._on_change)
        self._buffer.changed.listen(self._listener)
        self.message = producer.message

    @property
    def channel(self) -> str:
        """The name of the channel."""
        return self._producer.channel

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self._producer.backend

    @property
    def closed(self) -> bool:
        """True once ``close`` was called."""
        return self._producer.closed

    async def send(
        self, value: object, *, timeout_s: float = DEFAULT_TIMEOUT_S, **fields: Unpack[Fields]
    ) -> Receipt:
        """Send one message and wait until the broker has stored it.

        Values, fields and errors are those of ``gearshift.Producer.send``.
        """
        self._producer._check_open()
        message = self._producer._prepare(value, fields)
        if self._awaited is None:
            result = await self._result(message, timeout_s)
        else:
            result = await self._result_within(message, timeout_s, self._awaited)
        if isinstance(result, GearshiftError):
            raise result
        return result

    async def _result_within(
        self, message: Message, timeout_s: float, awaited: AwaitedHooks
    ) -> SendResult:
        """As ``_result``, with plugins around it. Raises DeadlineExceeded if they take too long."""
        async with self._around(awaited, timeout_s) as around:
            try:
                message = await around.begin(message)
            except asyncio.CancelledError as cancelled:
                cancelled.add_note(_known(message, False))
                raise
            result = await self._result(message, around.deadline - self._loop.time())
            await around.end([result])
        return result

    def _around(self, awaited: AwaitedHooks, timeout_s: float) -> AroundSends:
        deadline = self._loop.time() + timeout_s
        return AroundSends(awaited, self.backend, self.channel, self._producer._checked, deadline)

    async def _result(self, message: Message, timeout_s: float) -> SendResult:
        parcel = self._gathering(timeout_s)
        waiting: asyncio.Future[SendResult] = self._loop.create_future()
        parcel.messages.append(message)
        parcel.waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(_known(message, parcel.has_left(waiting)))
            raise

    async def send_many(
        self,
        values: Iterable[object] | AsyncIterable[object],
        *,
        key_by: Callable[[Any], Key | None] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        raise_on_error: bool = True,
    ) -> list[SendResult]:
        """Send many messages, pipelined, in order; one result each, in the same order.

        ``values`` may be an async iterator; it is read as room becomes free. All else is as for
        ``gearshift.Producer.send_many``.
        """
        self._producer._check_open()
        if self._awaited is None:
            results = await self._results(values, key_by, timeout_s, None)
        else:
            async with self._around(self._awaited, timeout_s) as around:
                results = await self._results(values, key_by, timeout_s, around)
                await around.end(results)
        if raise_on_error and any(isinstance(result, GearshiftError) for result in results):
            raise SendFailed(results)
        return results

    async def _results(
        self,
        values: Iterable[object] | AsyncIterable[object],
        key_by: Callable[[Any], Key | None] | None,
        timeout_s: float,
        around: AroundSends | None,
    ) -> list[SendResult]:
        results: list[SendResult] = []
        sent: deque[tuple[list[Prepared], Parcel]] = deque()
        refused: GearshiftError | None = None
        async for part in _parts(values):
            prepared = [refused or self._producer._try_prepare(value, key_by) for value in part]
            deadline = time.monotonic() + timeout_s
            if around is not None and refused is None:
                prepared, refused = await around.begin_all(prepared, self._loop.time() + timeout_s)
            messages = [one for one in prepared if isinstance(one, Message)]
            parcel = self._enqueue(Parcel(deadline, messages, *self._futures()))
            sent.append((prepared, parcel))
            if messages and refused is None:
                refused = await parcel.gone  # nothing that comes after may overtake what is refused
            while sent and sent[0][1].results.done():  # messages are let go of as they are stored
                results += await _ended(*sent.popleft())
        for one in sent:
            results += await _ended(*one)
        return results

    async def flush(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait until everything sent has its result. Raises DeadlineExceeded."""
        await self._all_gone(timeout_s)
        await asyncio.to_thread(self._producer.flush, timeout_s)

    async def close(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Flush for up to ``timeout_s`` seconds and close. Idempotent.

        What is still unconfirmed then ends as OutcomeUnknown.
        """
        await self._all_gone(timeout_s)
        await asyncio.to_thread(self._producer.close, timeout_s)
        self._buffer.changed.unlisten(self._listener)
        self._hand_over()  # what is left is refused, as the producer is closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{repr(self._producer)[1:]}"

    # ── inside: on the event loop, but for _on_change ──

    def _gathering(self, timeout_s: float) -> GatheredParcel:
        """The parcel for what is sent in this turn of the loop with this deadline."""
        deadline = time.monotonic() + timeout_s
        last = self._parcels[-1] if self._parcels else None
        if isinstance(last, GatheredParcel) and last.takes_more(deadline):
            return last
        gathered = GatheredParcel(deadline, [], *self._futures())
        self._enqueue(gathered)
        return gathered

    def _futures(self) -> tuple[asyncio.Future[Any], asyncio.Future[Any]]:
        return self._loop.create_future(), self._loop.create_future()

    def _enqueue(self, parcel: Parcel) -> Parcel:
        self._parcels.append(parcel)
        if not self._is_due and self._timer is None:
            self._is_due = True
            self._loop.call_soon(self._hand_over)
        return parcel

    def _hand_over(self) -> None:
        """Hand over parcels, in order, as far as there is room."""
        self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._parcels:
            is_over = self._is_over(self._parcels[0])
            error = self._put(self._parcels[0], again=not is_over)
            if isinstance(error, BackpressureError) and not is_over:
                # A broker does not announce that it takes messages again: it is asked.
                self._timer = self._loop.call_later(TICK_S, self._hand_over)
                return
            parcel = self._parcels.popleft()
            if error is not None:
                parcel.end([error] * len(parcel.messages))
                if parcel.batch is not None:
                    self._producer._tell_plugins(parcel.batch, error)
            if not parcel.gone.done():
                parcel.gone.set_result(error)

    def _put(self, parcel: Parcel, *, again: bool) -> GearshiftError | None:
        """Hand ``parcel`` over, or return why that cannot be, now or for ever (``again``)."""
        if not parcel.is_wanted():
            if parcel.batch is not None:
                cancelled = BackpressureError("the send was cancelled while it waited for room")
                self._producer._tell_plugins(parcel.batch, cancelled)
            return None
        if parcel.batch is None:
            batch = Batch(parcel.messages, parcel.deadline)
            parcel.batch = self._producer._with_plugins(batch)
        try:
            self._buffer.put(parcel.batch, waits=False, again=again)
        except GearshiftError as error:
            return error
        self._buffer.when_done(parcel.batch, partial(self._on_done, parcel))
        return None

    def _is_over(self, parcel: Parcel) -> bool:
        return self.closed or time.monotonic() >= parcel.deadline

    def _on_done(self, parcel: Parcel, batch: Batch) -> None:
        """The batch has its results. Whichever thread, with the buffer's lock held."""
        self._waker.call(partial(parcel.end, cast("Sequence[SendResult]", batch.results)))

    def _on_change(self) -> None:
        """There may be room. Whichever thread, with the buffer's lock held."""
        if self._timer is not None and not self._is_due:
            self._is_due = True
            self._waker.call(self._hand_over)

    async def _all_gone(self, timeout_s: float) -> None:
        gone = [parcel.gone for parcel in self._parcels]
        if gone:
            await asyncio.wait(gone, timeout=timeout_s)


async def _ended(prepared: list[Prepared], parcel: Parcel) -> list[SendResult]:
    """Wait for the results of a part of a send_many: what has none was refused before."""
    outcomes = iter(await parcel.results if parcel.messages else ())
    return [one if isinstance(one, GearshiftError) else next(outcomes) for one in prepared]


def _known(message: Message, has_left: bool) -> str:
    if has_left:
        return f"message {message.id!r} was handed over: it may or may not be stored"
    return f"message {message.id!r} was not handed over: it is not stored"


async def _parts(values: Iterable[object] | AsyncIterable[object]) -> Any:
    if isinstance(values, AsyncIterable):
        part: list[object] = []
        async for value in values:
            part.append(value)
            if len(part) == CHUNK:
                yield part
                part = []
        if part:
            yield part
    else:
        source = iter(values)
        while part := list(islice(source, CHUNK)):
            yield part
