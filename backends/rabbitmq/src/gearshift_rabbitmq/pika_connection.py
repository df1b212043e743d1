"""pika's connection and loop with what they lack: gathered writes, and nothing breaks them.

pika sends every frame by its own system call, three for a message, and each waits until its loop
has asked whether the socket takes it; a confirm passes through a registry of callbacks. And its
decoder raises on some of what a header table may hold, such as a time beyond the year 9999, and
then drops the connection; the broker delivers the same message to the next one, for ever. Ours
decodes properties only when somebody asks for them, as that costs more than all else, and reads all
field types but those that nobody has heard of yet: such a message is without its headers, and a
warning says so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pika
from pika import exceptions, spec
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.frame import Header, Heartbeat, Method, decode_frame
from pika.spec import Basic

from gearshift_rabbitmq.wire.properties import Properties, as_read
from gearshift_rabbitmq.wire.publishing import Publication, publish_frames

__all__ = ["OnConfirm", "PikaConnection", "PikaLoop"]

#: Called with a confirm's number, whether it is for all up to it, and whether it says no.
OnConfirm = Callable[[int, bool, bool], None]

_ENVELOPE = struct.Struct(">BHL")
_CONTENT = struct.Struct(">HHQ")
_CONFIRM = struct.Struct(">LQB")
_TAG = struct.Struct(">QB")
_DELIVER = struct.pack(">L", Basic.Deliver.INDEX)


class PikaLoop(IOLoop):  # type: ignore[misc]
    """A loop whose ``poll`` waits for at most ``most_s``."""

    most_s = 0.0

    def _get_remaining_interval(self) -> float:
        due_s: float | None = super()._get_remaining_interval()
        return self.most_s if due_s is None else min(due_s, self.most_s)


class PikaConnection(pika.SelectConnection):  # type: ignore[misc]
    """Writes between ``cork`` and ``uncork`` leave as a few large pieces.

    ``confirms`` has, by the number of its AMQP channel, who gets a confirm that comes over it.
    """

    _corked: list[bytes] | None = None
    _frame_buffer: bytes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.confirms: dict[int, OnConfirm] = {}
        super().__init__(*args, **kwargs)

    def cork(self) -> None:
        self._corked = []

    def uncork(self) -> None:
        pieces, self._corked = self._corked or [], None
        if pieces and self._transport is not None:
            self._write(b"".join(pieces))

    def publish(self, channel: int, publication: Publication) -> None:
        """Publish, mandatory. Raises what is wrong with it, nothing written."""
        self._adapter_emit_data(publish_frames(channel, publication, self._body_max_length))

    def abandon(self) -> None:
        """Drop the socket without closing the connection in order, whatever state it is in."""
        if not (self.is_open or self.is_closing):
            self.close()
        elif self._transport is not None:
            self._terminate_stream(exceptions.ConnectionClosedByClient(0, "abandoned"))

    def unsent_bytes(self) -> int:
        return self._get_write_buffer_size() if self._transport is not None else 0

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._corked is None:
            self._write(data)
        else:
            self._corked.append(data)

    def _write(self, data: bytes) -> None:
        """Send what the socket takes at once; the loop sends the rest."""
        transport = self._transport
        if type(transport) is _AsyncPlaintextTransport and not transport.get_write_buffer_size():
            with suppress(OSError):  # it takes nothing now, or it is broken: the loop finds out
                data = data[transport._sock.send(data) :]
        if data:
            super()._adapter_emit_data(data)

    def _on_data_available(self, data: bytes) -> None:
        if not self.is_open:
            super()._on_data_available(data)
            return
        buffer = self._frame_buffer + data if self._frame_buffer else data
        self._frame_buffer = b""
        start, length = 0, len(buffer)
        while length - start >= 8:
            kind, channel, size = _ENVELOPE.unpack_from(buffer, start)
            end = start + 8 + size
            if end > length:
                break
            if kind != spec.FRAME_METHOD or not self._took_confirm(buffer, start, channel, size):
                if kind == spec.FRAME_METHOD and (after := self._took_delivery(buffer, start, end)):
                    end = after
                else:
                    self._take(_frame(buffer[start:end]))
            self.bytes_received += end - start
            start = end
        self._frame_buffer = buffer[start:]

    def _took_confirm(self, buffer: bytes, start: int, channel: int, size: int) -> bool:
        """Hand over a basic.ack or basic.nack that somebody waits for; False if it is none."""
        on_confirm = self.confirms.get(channel)
        if on_confirm is None or size != _CONFIRM.size:
            return False
        method, number, bits = _CONFIRM.unpack_from(buffer, start + _ENVELOPE.size)
        if method != Basic.Ack.INDEX and method != Basic.Nack.INDEX:
            return False
        self.frames_received += 1
        on_confirm(number, bool(bits & 1), method == Basic.Nack.INDEX)
        return True

    def _took_delivery(self, buffer: bytes, start: int, end: int) -> int:
        """Give its consumer a message that is here as a whole, in three frames.

        Returns where it ends. 0 if it is none, or has to take pika's way, frame by frame.
        """
        _, channel, _ = _ENVELOPE.unpack_from(buffer, start)
        if not buffer.startswith(_DELIVER, start + _ENVELOPE.size):
            return 0
        content = _whole_content(buffer, end, channel)
        amqp_channel = self._channels.get(channel)
        if content is None or amqp_channel is None:
            return 0
        after, encoded, body = content
        method = _delivery(buffer, start + _ENVELOPE.size + len(_DELIVER))
        consumer = amqp_channel._consumers.get(method.consumer_tag)
        if consumer is None or method.consumer_tag in amqp_channel._cancelled:
            return 0
        self.frames_received += 3
        consumer(amqp_channel, method, Properties.unread(encoded), body)
        return after

    def _take(self, frame: Any) -> None:
        if type(frame) is not Heartbeat and (
            type(frame) is not Method or type(frame.method) is Basic.Deliver
        ):
            # Content belongs to its AMQP channel; nobody else can have asked for it.
            self.frames_received += 1
            self._deliver_frame_to_channel(frame)
        else:
            self._process_frame(frame)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = 65536
        if type(transport) is _AsyncPlaintextTransport:
            # The poll says whether there is more; reading until it fails would cost as much again.
            transport._MAX_CONSUME_BYTES = 1
        super()._proto_connection_made(transport)


def _whole_content(buffer: bytes, start: int, channel: int) -> tuple[int, bytes, bytes] | None:
    """Where a content of one body frame at most ends, its encoded properties and its body.

    None if not all of it is here.
    """
    length = len(buffer)
    at = start + _ENVELOPE.size
    if length < at + _CONTENT.size:
        return None
    kind, its_channel, size = _ENVELOPE.unpack_from(buffer, start)
    _, _, body_size = _CONTENT.unpack_from(buffer, at)
    end = at + size + spec.FRAME_END_SIZE
    if kind != spec.FRAME_HEADER or its_channel != channel or end > length:
        return None
    encoded = buffer[at + _CONTENT.size : at + size]
    if not body_size:
        return end, encoded, b""
    after = end + _ENVELOPE.size + body_size + spec.FRAME_END_SIZE
    if after > length or _ENVELOPE.unpack_from(buffer, end) != (
        spec.FRAME_BODY,
        channel,
        body_size,
    ):
        return None
    return after, encoded, buffer[end + _ENVELOPE.size : after - spec.FRAME_END_SIZE]


def _delivery(buffer: bytes, start: int) -> Basic.Deliver:
    """The arguments of a basic.deliver at ``start``."""
    consumer_tag, start = _short(buffer, start)
    number, bits = _TAG.unpack_from(buffer, start)
    exchange, start = _short(buffer, start + _TAG.size)
    routing_key, _ = _short(buffer, start)
    return Basic.Deliver(consumer_tag, number, bool(bits & 1), exchange, routing_key)


def _short(buffer: bytes, start: int) -> tuple[str | bytes, int]:
    """A short string at ``start``, and where it ends."""
    end = start + 1 + buffer[start]
    return as_read(buffer[start + 1 : end]), end


def _frame(data: bytes) -> Any:
    if data[0] != spec.FRAME_HEADER or data[-1] != spec.FRAME_END:
        return decode_frame(data)[1]  # which raises its errors on a broken one
    _, channel, _ = _ENVELOPE.unpack_from(data)
    payload = data[_ENVELOPE.size : -spec.FRAME_END_SIZE]
    _, _, body_size = _CONTENT.unpack_from(payload)
    return Header(channel, body_size, Properties.unread(payload[_CONTENT.size :]))
