"""A Message as the columns ``key, body, meta``, and back. Every field comes back as it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from gearshift.message import NO_HEADERS, Headers, Key, Message, as_key

__all__ = ["Columns", "decode", "encode", "fetch_within"]

#: A batch is read up to about this many bytes of bodies, so that big messages come in small ones.
_BATCH_BYTES = 16 * 1024 * 1024


class Columns(NamedTuple):
    """A message as it is stored, beside its id and time."""

    key: Key | None
    body: bytes | None
    meta: bytes


class _Meta(msgspec.Struct, array_like=True, gc=False):
    """All but key and body, as a MessagePack array: keeps str, bytes, int and bool apart."""

    headers: tuple[tuple[str, Any], ...]  # HeaderValue; msgspec has no such union
    id: str | None
    content_type: str | None
    timestamp_ms: int | None
    correlation_id: str | None
    reply_to: str | None
    type: str | None
    content_encoding: str | None = None  # rows of earlier versions end before it


_to_bytes = msgspec.msgpack.Encoder().encode
_to_meta = msgspec.msgpack.Decoder(_Meta).decode


def encode(message: Message) -> Columns:
    """The columns of ``message``. Raises on texts that are not valid Unicode."""
    key = message.key
    if isinstance(key, bytes):
        key = as_key(key)  # to SQLite a text and a blob of the same bytes are two keys
    elif key is not None and not key.isascii():
        key.encode()  # a lone surrogate fails here, not inside other callers' transaction
    meta = (  # the fields of _Meta, which is only worth making to have them checked
        message.headers.pairs,
        message.id,
        message.content_type,
        message.timestamp_ms,
        message.correlation_id,
        message.reply_to,
        message.type,
        message.content_encoding,
    )
    return Columns(key, message.body, _to_bytes(meta))


def decode(key: Key | None, body: bytes | None, meta: bytes) -> Message:
    """The message that ``encode`` was given."""
    m = _to_meta(meta)
    headers = Headers(m.headers) if m.headers else NO_HEADERS
    return Message(
        body,
        key,
        headers,
        m.id,
        m.content_type,
        m.timestamp_ms,
        m.correlation_id,
        m.reply_to,
        m.type,
        m.content_encoding,
    )


def fetch_within(cursor: Iterable[Any]) -> list[Any]:
    """Rows ``id, key, body, ...``: at least one if any, until their bodies are too many bytes."""
    rows: list[Any] = []
    room = _BATCH_BYTES
    for row in cursor:
        rows.append(row)
        room -= len(row[2] or b"")
        if room <= 0:
            break
    return rows
