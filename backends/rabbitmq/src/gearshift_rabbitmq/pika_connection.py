"""pika's connection with two changes: writes can be gathered, and no message can break it.

pika sends every frame by its own system call, three for a message. And its decoder raises on some
of what a header table may hold, such as a time beyond the year 9999, and then drops the connection;
the broker delivers the same message to the next one, for ever. Ours reads all field types but those
that nobody has heard of yet: such a message arrives without its headers, and a warning says so.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from typing import Any

import pika
from pika import exceptions, spec
from pika.frame import Header, Heartbeat, Method, decode_frame
from pika.spec import Basic

from gearshift_rabbitmq.wire.properties import Properties, without_headers

__all__ = ["PikaConnection"]

logger = logging.getLogger("gearshift.rabbitmq.connection")

_ENVELOPE = struct.Struct(">BHL")
_CONTENT = struct.Struct(">HHQ")


class PikaConnection(pika.SelectConnection):  # type: ignore[misc]
    """Writes between ``cork`` and ``uncork`` leave as a few large pieces."""

    _corked: list[bytes] | None = None
    _frame_buffer: bytes

    def cork(self) -> None:
        self._corked = []

    def uncork(self) -> None:
        pieces, self._corked = self._corked or [], None
        if pieces and self._transport is not None:
            super()._adapter_emit_data(b"".join(pieces))

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
            super()._adapter_emit_data(data)
        else:
            self._corked.append(data)

    def _on_data_available(self, data: bytes) -> None:
        if not self.is_open:
            super()._on_data_available(data)
            return
        buffer = self._frame_buffer + data if self._frame_buffer else data
        self._frame_buffer = b""
        start = 0
        for end, frame in _frames(buffer):
            self.bytes_received += end - start
            start = end
            if type(frame) is not Heartbeat and (
                type(frame) is not Method or type(frame.method) is Basic.Deliver
            ):
                # Content belongs to its AMQP channel; nobody else can have asked for it.
                self.frames_received += 1
                self._deliver_frame_to_channel(frame)
            else:
                self._process_frame(frame)
        self._frame_buffer = buffer[start:]

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = 65536
        super()._proto_connection_made(transport)


def _frames(buffer: bytes) -> Iterator[tuple[int, Any]]:
    """Each whole frame in ``buffer`` with where it ends."""
    start, length = 0, len(buffer)
    unpack = _ENVELOPE.unpack_from
    while length - start >= 8:
        end = start + 8 + unpack(buffer, start)[2]
        if end > length:
            return
        yield end, _frame(buffer[start:end])
        start = end


def _frame(data: bytes) -> Any:
    if data[0] != spec.FRAME_HEADER or data[-1] != spec.FRAME_END:
        return decode_frame(data)[1]  # which raises its errors on a broken one
    _, channel, _ = _ENVELOPE.unpack_from(data)
    payload = data[_ENVELOPE.size : -spec.FRAME_END_SIZE]
    _, _, body_size = _CONTENT.unpack_from(payload)
    return Header(channel, body_size, _properties(payload[_CONTENT.size :]))


def _properties(encoded: bytes) -> Properties:
    try:
        return Properties().decode(encoded)
    except (ValueError, struct.error, IndexError) as error:
        logger.warning("a message came without its headers, they cannot be decoded: %r", error)
        return Properties().decode(without_headers(encoded))
