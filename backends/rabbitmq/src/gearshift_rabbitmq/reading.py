"""Reading frames that pika cannot decode, so that no foreign message can break a connection.

A header table may hold what pika's decoder raises on: a double that is NaN or infinite, a
timestamp beyond the year 9999, a field type of a newer client. pika answers by dropping the
connection; the broker then delivers the same message to the next one, for ever. Here such a
message arrives without its headers, and a warning says so.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from typing import Any

from pika import exceptions, spec
from pika.frame import Header, decode_frame
from pika.spec import BasicProperties

__all__ = ["read_frame"]

logger = logging.getLogger("gearshift.rabbitmq.wire")

_ENVELOPE = struct.Struct(">BHL")
_CONTENT = struct.Struct(">HHQ")
_FLAGS = struct.Struct(">H")
_LENGTH = struct.Struct(">I")


def read_frame(data: bytes) -> Any:
    """As ``pika.frame.decode_frame``: bytes used and the frame, or 0 and None for a part."""
    try:
        return decode_frame(data)
    except exceptions.InvalidFrameError:
        raise  # the stream itself is broken, not one value in it
    except Exception as error:
        kind, channel, size = _ENVELOPE.unpack_from(data)
        if kind != spec.FRAME_HEADER:
            raise
        payload = data[_ENVELOPE.size : _ENVELOPE.size + size]
        logger.warning("a message came without its headers, they cannot be decoded: %r", error)
        _, _, body_size = _CONTENT.unpack_from(payload)
        properties = _without_headers(payload[_CONTENT.size :])
        return _ENVELOPE.size + size + spec.FRAME_END_SIZE, Header(channel, body_size, properties)


def frames(buffer: bytes) -> Iterator[tuple[int, Any]]:
    """Each whole frame in ``buffer`` with where it ends."""
    start, length = 0, len(buffer)
    unpack = _LENGTH.unpack_from
    while length - start >= 8:
        end = start + 8 + unpack(buffer, start + 3)[0]
        if end > length:
            return
        _, frame = read_frame(buffer[start:end])
        yield end, frame
        start = end


def _without_headers(encoded: bytes) -> BasicProperties:
    """The properties in ``encoded``, less their header table."""
    flags = _FLAGS.unpack_from(encoded)[0]
    start = _FLAGS.size
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    end = start + _LENGTH.size + _LENGTH.unpack_from(encoded, start)[0]
    kept = _FLAGS.pack(flags & ~BasicProperties.FLAG_HEADERS)
    return BasicProperties().decode(kept + encoded[_FLAGS.size : start] + encoded[end:])
