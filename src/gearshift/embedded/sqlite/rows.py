"""A Message as the columns ``key, body, meta``, and back. Every field comes back as it was."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import msgspec

from gearshift.driver.helpers import UnreadMessage
from gearshift.message import NO_HEADERS, Headers, Key, Message, as_key

__all__ = ["UnreadRow", "encode", "fetch_within", "runs"]

#: A batch is read up to about this many bytes of bodies, so that big messages come in small ones.
_BATCH_BYTES = 16 * 1024 * 1024


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


def encode(message: Message) -> tuple[Key | None, bytes | None, bytes]:
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
    return key, message.body, _to_bytes(meta)


class UnreadRow(UnreadMessage, frozen=True, gc=False):
    """The message that ``encode`` was given; ``source`` is its ``meta``."""

    stored_key: Key | None = None

    def read(self) -> Message:
        m = _to_meta(self.source)
        headers = Headers(m.headers) if m.headers else NO_HEADERS
        return Message(
            self.body,
            self.stored_key,
            headers,
            m.id,
            m.content_type,
            m.timestamp_ms,
            m.correlation_id,
            m.reply_to,
            m.type,
            m.content_encoding,
        )

    def has_header(self, name: str) -> bool:
        return name.encode() in self.source and super().has_header(name)


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


def runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Ids in order as ranges, first and last: one statement settles a range as it does one row."""
    found = []
    for _, run in groupby(enumerate(ids), lambda one: one[1] - one[0]):
        row = [id_ for _, id_ in run]
        found.append((row[0], row[-1]))
    return found
