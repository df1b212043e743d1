"""Reading frames so that no foreign message can break a connection.

pika's own decoder raises on some of what a header table may hold, such as a time beyond the year
9999, and then drops the connection; the broker delivers the same message to the next one, for ever.
Ours reads all of it but for field types that nobody has heard of yet: such a message arrives
without its headers, and a warning says so.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from typing import Any

from pika import spec
from pika.frame import Header, decode_frame

from gearshift_rabbitmq.properties import Properties, without_headers

__all__ = ["frames", "read_frame"]

logger = logging.getLogger("gearshift.rabbitmq.wire")

_ENVELOPE = struct.Struct(">BHL")
_CONTENT = struct.Struct(">HHQ")
_LENGTH = struct.Struct(">I")


def read_frame(data: bytes) -> Any:
    """As ``pika.frame.decode_frame``: bytes used and the frame, or 0 and None for a part."""
    if len(data) < _ENVELOPE.size or data[0] != spec.FRAME_HEADER:
        return decode_frame(data)
    _, channel, size = _ENVELOPE.unpack_from(data)
    used = _ENVELOPE.size + size + spec.FRAME_END_SIZE
    if len(data) < used or data[used - 1] != spec.FRAME_END:
        return decode_frame(data)  # a part, or a broken stream, for which it has its errors
    payload = data[_ENVELOPE.size : used - spec.FRAME_END_SIZE]
    _, _, body_size = _CONTENT.unpack_from(payload)
    return used, Header(channel, body_size, _properties(payload[_CONTENT.size :]))


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


def _properties(encoded: bytes) -> Properties:
    try:
        return Properties().decode(encoded)
    except (ValueError, struct.error, IndexError) as error:
        logger.warning("a message came without its headers, they cannot be decoded: %r", error)
        return Properties().decode(without_headers(encoded))
