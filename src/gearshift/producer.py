"""Producers: values in, receipts out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, TypeAlias, Unpack

from gearshift._core.clients import Client, refuse_in_event_loop, runs_event_loop
from gearshift._core.publishing.batch import Batch
from gearshift._core.publishing.buffer import PublishBuffer
from gearshift.codecs import Codec
from gearshift.errors import (
    Closed,
    DeadlineExceeded,
    GearshiftError,
    InvalidMessage,
    MessageTooLarge,
    NotSupported,
    SendFailed,
)
from gearshift.message import (
    Fields,
    HeadersLike,
    Key,
    Message,
    Receipt,
    SendResult,
    as_key,
    message_id,
)
from gearshift.validation import as_headers, validated_size

__all__ = ["CHUNK", "DEFAULT_TIMEOUT_S", "Prepared", "Producer", "ProducerPolicy"]

#: Messages that are handed to a driver together.
CHUNK = 500

DEFAULT_TIMEOUT_S = 30.0

#: A message that may be sent, or why it may not.
Prepared: TypeAlias = Message | GearshiftError

#: Makes of a batch for a channel the one that plugins want, whose messages must pass the check.
OnSend: TypeAlias = Callable[[Batch, str, str, Callable[[Message], object]], Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerPolicy:
    """Name, codec, size limit in bytes and tombstones of a channel.

    A message that came from ``backend`` keeps what only that backend has a name for.
    """

    channel: str
    backend: str
    codec: Codec
    max_message_bytes: int
    tombstones: bool


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Part of a send_many: messages and errors in order, with the batch of the messages.

    If the batch was ``refused``, that is the result of each of them.
    """

    prepared: list[Prepared]
    batch: Batch
    refused: GearshiftError | None

    def is_finished(self) -> bool:
        return self.refused is not None or self.batch.is_finished

    def results(self, buffer: PublishBuffer) -> list[SendResult]:
        sent = repeat(self.refused) if self.refused else iter(buffer.wait(self.batch))
        return [item if isinstance(item, GearshiftError) else next(sent) for item in self.prepared]


class Producer(Client):
    """Sends to one channel. Made by ``Bus.producer``; every method may be called from any thread.

    A send that returned is stored by the broker. What is in flight is bounded (10,000 messages or
    64 MiB); a full window blocks until there is room or the deadline has passed.
    """

    def __init__(
        self,
        buffer: PublishBuffer,
        policy: ProducerPolicy,
        *,
        owner: object,
        on_send: OnSend | None = None,
    ) -> None:
        super().__init__(buffer, policy.channel, owner)
        self._buffer = buffer
        self._policy = policy
        self._on_send = on_send

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self._policy.backend

    def message(
        self,
        value: object,
        *,
        key: Key | None = None,
        headers: HeadersLike | None = None,
        id: str | None = None,
        content_type: str | None = None,
        timestamp_ms: int | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        type: str | None = None,
        content_encoding: str | None = None,
    ) -> Message:
        """Encode ``value`` and check everything, without sending. Does not block.

        ``key`` keeps messages in order where the backend declares it: a str, or bytes where it is
        not UTF-8. ``headers`` are str, bytes, int (64 bits) or bool; names may repeat in a list of
        pairs. ``id`` defaults to a new one, ``timestamp_ms`` to now. ``content_encoding`` says
        what you packed the body with. Raises InvalidMessage, MessageTooLarge, EncodeError,
        NotSupported.
        """
        body: bytes | None = None
        if value is not None:
            body, encoded_type = self._policy.codec.encode(value)
            content_type = encoded_type if content_type is None else content_type
        return self._checked(
            Message(
                body,
                as_key(key) if isinstance(key, bytes) else key,
                as_headers(headers),
                message_id() if id is None else id,
                content_type,
                _now_ms() if timestamp_ms is None else timestamp_ms,
                correlation_id,
                reply_to,
                type,
                content_encoding,
            )
        )

    def send(
        self, value: object, *, timeout_s: float = DEFAULT_TIMEOUT_S, **fields: Unpack[Fields]
    ) -> Receipt:
        """Send one message and wait until the broker has stored it.

        ``value`` is encoded by the channel's codec, or is a Message; ``fields`` are those of
        ``message``. A received Message, or a changed copy of one, leaves as it came,
        with what only its backend has a name for, and without an id if it had none;
        ``headers=delivery.headers`` copies what is shown. Blocks for at most ``timeout_s``
        seconds. Raises what ``message`` raises, and BackpressureError, ConnectionFailed,
        UnknownChannel, PublishRefused or Unroutable (nothing is stored) or OutcomeUnknown (it may
        be).
        """
        message = self._prepare(value, fields)
        refuse_in_event_loop("send", instead="submit")
        self._check_open()
        batch = self._put(Batch([message], time.monotonic() + timeout_s, is_awaited=True))
        result = self._buffer.wait(batch)[0]
        if isinstance(result, GearshiftError):
            raise result
        return result

    def send_many(
        self,
        values: Iterable[object],
        *,
        key_by: Callable[[Any], Key | None] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        raise_on_error: bool = True,
    ) -> list[SendResult]:
        """Send many messages, pipelined, in order; one result each, in the same order.

        ``values`` may be a generator of any length: it is read as room becomes free. Each is a
        value, or a Message made by ``message`` when it needs headers; ``key_by`` computes a
        value's key. Blocks; no single message waits longer than ``timeout_s`` seconds.

        Results are Receipts. If any message has none, SendFailed carries all results; with
        ``raise_on_error=False`` they are returned, errors in the places of receipts. A value that
        cannot be sent at all (InvalidMessage) gets its error the same way and the others go on.
        """
        refuse_in_event_loop("send_many", instead="submit")
        self._check_open()
        results: list[SendResult] = []
        chunks: deque[_Chunk] = deque()
        refused: GearshiftError | None = None
        remaining = iter(values)
        while part := list(islice(remaining, CHUNK)):
            prepared = [self._try_prepare(value, key_by) for value in part]
            # Nothing that comes after a refused chunk may overtake it.
            chunks.append(self._start(prepared, timeout_s, refused))
            refused = chunks[-1].refused
            while chunks and chunks[0].is_finished():
                results += chunks.popleft().results(self._buffer)
        for chunk in chunks:
            results += chunk.results(self._buffer)
        if raise_on_error and any(isinstance(result, GearshiftError) for result in results):
            raise SendFailed(results)
        return results

    def submit(
        self, value: object, *, timeout_s: float = DEFAULT_TIMEOUT_S, **fields: Unpack[Fields]
    ) -> Future[Receipt]:
        """Send without waiting; the future gets the Receipt, or the error ``send`` would raise.

        Takes what ``send`` takes. Blocks only while the window is full or there is no connection,
        at most ``timeout_s`` seconds, which is also the deadline of the message. On a thread that
        runs an event loop it never blocks: without a connection the message waits in the window,
        and a full window or a broker that takes nothing is a BackpressureError at once. The
        future's callbacks run on one thread of the producer: keep them short, and do not send from
        them.
        """
        self._check_open()
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()
        self._put(
            Batch(
                [self._prepare(value, fields)],
                time.monotonic() + timeout_s,
                lambda batch: _resolve(future, batch.results[0]),
            ),
            waits=not runs_event_loop(),
        )
        return future

    def refusal(self, message: Message) -> GearshiftError | None:
        """Return the error of a message that can never be sent here, else None. Does not block."""
        prepared = self._try_prepare(message, None)
        return prepared if isinstance(prepared, GearshiftError) else None

    def flush(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait until everything submitted has its result and callbacks of futures have run.

        Raises DeadlineExceeded after ``timeout_s`` seconds.
        """
        if not self._buffer.flush(timeout_s):
            raise DeadlineExceeded(
                f"{self._buffer.in_flight} messages have no result after {timeout_s} s",
                backend=self.backend,
                channel=self.channel,
            )

    def close(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Flush for up to ``timeout_s`` seconds and close. Idempotent.

        What is still unconfirmed then ends as OutcomeUnknown, in its future or its sender.
        """
        self._buffer.close(timeout_s)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._buffer.in_flight} in flight"
        return f"<Producer {self.channel!r}, {state}>"

    # ── inside ──

    def _check_open(self) -> None:
        if self.closed:
            raise Closed("this producer is closed", channel=self.channel)

    def _start(
        self, prepared: list[Prepared], timeout_s: float, refused: GearshiftError | None
    ) -> _Chunk:
        messages = [item for item in prepared if isinstance(item, Message)]
        batch = Batch(messages, time.monotonic() + timeout_s)
        if messages and refused is None:
            try:
                batch = self._put(batch)
            except GearshiftError as error:
                refused = error
        return _Chunk(prepared, batch, refused)

    def _put(self, batch: Batch, *, waits: bool = True) -> Batch:
        """Put the batch, as plugins want it, into the buffer. Raises as ``PublishBuffer.put``."""
        batch = self._with_plugins(batch)
        try:
            self._buffer.put(batch, waits=waits)
        except GearshiftError as error:
            self._tell_plugins(batch, error)
            raise
        return batch

    def _with_plugins(self, batch: Batch) -> Batch:
        """Return the batch as plugins want it."""
        if self._on_send is None:
            return batch
        return self._on_send(batch, self.backend, self.channel, self._checked)

    def _tell_plugins(self, batch: Batch, error: GearshiftError) -> None:
        """The batch that they were shown was refused with ``error``."""
        if self._on_send is not None and batch.on_done is not None:
            batch.results[:] = [error] * len(batch.messages)
            batch.on_done(batch)

    def _try_prepare(self, value: object, key_by: Callable[[Any], Key | None] | None) -> Prepared:
        try:
            if key_by is None or isinstance(value, Message):
                return self._prepare(value, {})
            return self._prepare(value, {"key": key_by(value)})
        except GearshiftError as error:
            return error

    def _prepare(self, value: object, fields: Fields) -> Message:
        if not isinstance(value, Message):
            return self.message(value, **fields)
        if fields:
            raise InvalidMessage(
                f"a Message has its own {', '.join(fields)}", hint="set them when you make it"
            )
        if value.native is not None and value.native.backend != self._policy.backend:
            value = value.replace(native=None)
        # What came without an id or a time goes back so: the driver knows how it came.
        if value.native is None and (value.id is None or value.timestamp_ms is None):
            value = value.replace(
                id=message_id() if value.id is None else value.id,
                timestamp_ms=_now_ms() if value.timestamp_ms is None else value.timestamp_ms,
            )
        return self._checked(value)

    def _checked(self, message: Message) -> Message:
        if message.body is None and not self._policy.tombstones:
            raise NotSupported(
                "None is no message body here: this backend has no tombstones",
                hint="send b'' for an empty body",
                channel=self.channel,
            )
        size, limit = validated_size(message), self._policy.max_message_bytes
        if size > limit:
            raise MessageTooLarge(
                f"the message is {size} bytes with key and headers, the limit is {limit}",
                hint="store the body elsewhere and send a reference",
                channel=self.channel,
            )
        return message


def _resolve(future: Future[Receipt], result: SendResult | None) -> None:
    if isinstance(result, Receipt):
        future.set_result(result)
    else:
        future.set_exception(result)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
