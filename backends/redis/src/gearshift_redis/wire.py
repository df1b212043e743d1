"""Message <-> the fields of an entry. Nothing that a foreign program can store makes reading fail.

Fields have the names of a message's; ``gearshift-headers`` is MessagePack, as headers have types
and an order, and ``gearshift-attempts`` counts the attempts before. Other fields become headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gearshift.errors import NotSupported
from gearshift.message import NO_HEADERS, Headers, HeaderValue, Message

__all__ = ["RETURNS_PER_ATTEMPT", "Fields", "attempts_of", "fields_of", "message_of"]

Fields = list[str | bytes]

#: A delivery that ended without a word says little of a message: mostly it only lay in the buffer
#: of a consumer that closed. So many of them are one attempt, and what kills its workers ends too.
RETURNS_PER_ATTEMPT: Final = 10

_TEXTS = ("key", "id", "content_type", "correlation_id", "reply_to", "type")
_TIMESTAMP = "timestamp_ms"
_HEADERS = "gearshift-headers"
_ATTEMPTS = "gearshift-attempts"
_KNOWN = frozenset(name.encode() for name in (*_TEXTS, _TIMESTAMP, _HEADERS, _ATTEMPTS))
_PAIRS = msgspec.msgpack.Decoder(list[tuple[str, Any]])


def fields_of(message: Message, body_field: str, *, attempts: int = 0) -> Fields:
    """Names and values in turn, as XADD takes them. Raises NotSupported without a body."""
    if message.body is None:
        raise NotSupported("Redis has no message without a body", hint='send b"" instead of None')
    fields: Fields = [body_field, message.body]
    for name in _TEXTS:
        value = getattr(message, name)
        if value is not None:
            fields += [name, value]
    if message.timestamp_ms is not None:
        fields += [_TIMESTAMP, str(message.timestamp_ms)]
    if message.headers.pairs:
        fields += [_HEADERS, msgspec.msgpack.encode(message.headers.pairs)]
    if attempts:
        fields += [_ATTEMPTS, str(attempts)]
    return fields


def message_of(entry: Mapping[bytes, bytes], body_field: str) -> Message:
    """The message of an entry."""
    texts = {name: _text(entry.get(name.encode())) for name in _TEXTS}
    return Message(
        entry.get(body_field.encode(), b""),
        texts["key"],
        _headers(entry, body_field.encode()),
        texts["id"],
        texts["content_type"],
        _number(entry.get(_TIMESTAMP.encode())),
        texts["correlation_id"],
        texts["reply_to"],
        texts["type"],
    )


def attempts_of(entry: Mapping[bytes, bytes]) -> int:
    """How many attempts the message of an entry has had before it was stored again."""
    return _number(entry.get(_ATTEMPTS.encode())) or 0


def _headers(entry: Mapping[bytes, bytes], body_field: bytes) -> Headers:
    pairs: list[tuple[str, HeaderValue]] = []
    packed = entry.get(_HEADERS.encode())
    if packed is not None:
        try:
            pairs += [
                (name, value if isinstance(value, str | bytes | int) else str(value))
                for name, value in _PAIRS.decode(packed)
            ]
        except msgspec.MsgspecError:
            pairs.append((_HEADERS, packed))
    for name, value in entry.items():
        if name not in _KNOWN and name != body_field:
            pairs.append((name.decode(errors="replace"), _loose(value)))
    return Headers(tuple(pairs)) if pairs else NO_HEADERS


def _loose(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _number(value: bytes | None) -> int | None:
    if value is None or not value.isdigit() or len(value) > 18:
        return None
    return int(value)
