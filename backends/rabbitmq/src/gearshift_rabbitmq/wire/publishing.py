"""A message to publish, as the bytes that go over the wire.

pika makes four objects and fourteen pieces of a message; this makes one, in a fifth of the time.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from pika.compat import long
from pika.spec import BasicProperties

from gearshift_rabbitmq.wire.properties import field

__all__ = ["Publication", "encoded_properties", "header", "publish_frames"]

_BASIC, _PUBLISH, _MANDATORY = 60, 40, b"\x01"
_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_METHOD_START = struct.Struct(">BHIHHH").pack
_HEADER_START = struct.Struct(">BHIHHQ").pack
_BODY_START = struct.Struct(">BHI").pack
_FLAGS = struct.Struct(">H").pack
_LENGTH = struct.Struct(">I").pack
_SECONDS = struct.Struct(">Q").pack
_INT64 = struct.Struct(">q").pack


class Publication(NamedTuple):
    """One message as AMQP sees it: ``properties`` are encoded. ``id`` is among them."""

    exchange: str
    routing_key: str | bytes
    id: str | None
    properties: bytes
    body: bytes


def publish_frames(channel: int, publication: Publication, most_bytes: int) -> bytes:
    """The frames that publish it over ``channel``, ``most_bytes`` of the body in each."""
    exchange, routing_key, _, properties, body = publication
    route = _short(exchange) + _short(routing_key) + _MANDATORY
    size = len(body)
    method = _METHOD_START(_METHOD, channel, 6 + len(route), _BASIC, _PUBLISH, 0)
    content = _HEADER_START(_HEADER, channel, 12 + len(properties), _BASIC, 0, size)
    pieces = [method, route, _END, content, properties, _END]
    if size <= most_bytes:
        if size:
            pieces += (_BODY_START(_BODY, channel, size), body, _END)
        return b"".join(pieces)
    for start in range(0, size, most_bytes):
        part = body[start : start + most_bytes]
        pieces += (_BODY_START(_BODY, channel, len(part)), part, _END)
    return b"".join(pieces)


def encoded_properties(
    *,
    headers: list[bytes],
    content_type: str | None,
    content_encoding: str | None,
    correlation_id: str | None,
    reply_to: str | None,
    message_id: str | None,
    timestamp: int | None,
    type: str | None,
) -> bytes:
    """Properties of a persistent message, ``headers`` encoded one by one."""
    flags = BasicProperties.FLAG_DELIVERY_MODE
    pieces = [b""]
    if content_type is not None:
        flags |= BasicProperties.FLAG_CONTENT_TYPE
        pieces.append(_short_again(content_type))
    if content_encoding is not None:
        flags |= BasicProperties.FLAG_CONTENT_ENCODING
        pieces.append(_short_again(content_encoding))
    if headers:
        flags |= BasicProperties.FLAG_HEADERS
        table = b"".join(headers)
        pieces += (_LENGTH(len(table)), table)
    pieces.append(b"\x02")
    if correlation_id is not None:
        flags |= BasicProperties.FLAG_CORRELATION_ID
        pieces.append(_short(correlation_id))
    if reply_to is not None:
        flags |= BasicProperties.FLAG_REPLY_TO
        pieces.append(_short(reply_to))
    if message_id is not None:
        flags |= BasicProperties.FLAG_MESSAGE_ID
        pieces.append(_short(message_id))
    if timestamp is not None:
        flags |= BasicProperties.FLAG_TIMESTAMP
        pieces.append(_SECONDS(timestamp))
    if type is not None:
        flags |= BasicProperties.FLAG_TYPE
        pieces.append(_short_again(type))
    pieces[0] = _FLAGS(flags)
    return b"".join(pieces)


def header(name: str, value: object) -> bytes:
    """One header, encoded. Raises what pika raises on what AMQP has no type for."""
    if type(value) is str:
        text = value.encode()
        return b"%bS%b%b" % (_short_again(name), _LENGTH(len(text)), text)
    if type(value) is long:
        return b"%bl%b" % (_short_again(name), _INT64(value))
    return field(name, value).wire


def _short(text: str | bytes) -> bytes:
    encoded = text.encode() if isinstance(text, str) else text
    return bytes((len(encoded),)) + encoded


#: For what a program has few of and uses again and again.
_short_again = lru_cache(maxsize=1024)(_short)
