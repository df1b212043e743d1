"""Message <-> Kafka record: key, value, timestamp and headers, exactly, both ways.

The key is the record's key in UTF-8, the body its value, ``None`` a tombstone. The fields
``content_type``, ``id``, ``correlation_id``, ``reply_to`` and ``type`` travel as the headers
``content-type``, ``message-id``, ``correlation-id``, ``reply-to`` and ``type``, the user's headers
after them in their order. Kafka headers are bytes; ``str`` values go as UTF-8, ``int`` and
``bool`` as text. What that loses is kept in one more header, only where there is something to
keep: ``gearshift-header-types`` lists ``index:letter`` for headers whose value is not a ``str``
(``b`` bytes, ``i`` int, ``t`` bool) or whose name is one of the five above although it is the
user's own (``s`` str). The index counts the record's headers from 0. A record from elsewhere has
no such list: there the first text under one of the five names is the field. Headers that begin
with ``gearshift-`` are not shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE
from confluent_kafka import Message as Record

from gearshift.message import NO_HEADERS, RESERVED_PREFIX, Headers, HeaderValue, Message

__all__ = [
    "RecordHeaders",
    "decode",
    "decode_headers",
    "encode_headers",
    "encode_key",
    "headers_of",
]

RecordHeaders: TypeAlias = list[tuple[str, str | bytes | None]]

TYPES_HEADER: Final = "gearshift-header-types"
#: Kafka clients read timestamp 0 as "now"; this header carries the one moment that they cannot.
EPOCH_HEADER: Final = "gearshift-epoch"

_FIELDS: Final = {
    "content-type": "content_type",
    "message-id": "id",
    "correlation-id": "correlation_id",
    "reply-to": "reply_to",
    "type": "type",
}


def encode_key(key: str | None) -> bytes | None:
    """The record key. A foreign key that was not UTF-8 becomes the same bytes again."""
    return None if key is None else key.encode("utf-8", "surrogateescape")


def encode_headers(message: Message) -> RecordHeaders:
    """The record's headers; never raises for a message that core has validated."""
    headers: RecordHeaders = []
    add = headers.append
    if message.content_type is not None:
        add(("content-type", message.content_type))
    if message.id is not None:
        add(("message-id", message.id))
    if message.correlation_id is not None:
        add(("correlation-id", message.correlation_id))
    if message.reply_to is not None:
        add(("reply-to", message.reply_to))
    if message.type is not None:
        add(("type", message.type))
    if message.headers.pairs:
        _add_user_headers(headers, message.headers.pairs)
    if message.timestamp_ms == 0:
        add((EPOCH_HEADER, ""))
    return headers


def _add_user_headers(headers: RecordHeaders, pairs: Iterable[tuple[str, HeaderValue]]) -> None:
    types: list[str] = []
    for name, value in pairs:
        if isinstance(value, str):
            if name in _FIELDS:
                types.append(f"{len(headers)}:s")
            headers.append((name, value))
        else:
            letter, data = _encode_value(value)
            types.append(f"{len(headers)}:{letter}")
            headers.append((name, data))
    if types:
        headers.append((TYPES_HEADER, ",".join(types)))


def _encode_value(value: bytes | int) -> tuple[str, str | bytes]:
    if isinstance(value, bytes):
        return "b", value
    if isinstance(value, bool):
        return "t", "true" if value else "false"
    return "i", str(value)


def decode(record: Record) -> Message:
    """The message in a record, whoever wrote it; never raises.

    Bytes that are not UTF-8 stay bytes in headers and are escaped in the key
    (``surrogateescape``); a header without value becomes ``""``.
    """
    key = record.key()
    value = record.value()
    fields, headers, epoch = decode_headers(headers_of(record))
    return Message(
        body=value if value is None or isinstance(value, bytes) else value.encode(),
        key=key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key,
        headers=headers,
        id=fields.get("id"),
        content_type=fields.get("content_type"),
        timestamp_ms=0 if epoch else _timestamp(record),
        correlation_id=fields.get("correlation_id"),
        reply_to=fields.get("reply_to"),
        type=fields.get("type"),
    )


def decode_headers(
    pairs: RecordHeaders,
) -> tuple[dict[str, str], Headers, bool]:
    """Message fields, the user's headers, and whether the timestamp is 0."""
    types = _types(pairs)
    fields: dict[str, str] = {}
    user: list[tuple[str, HeaderValue]] = []
    epoch = False
    for index, (name, data) in enumerate(pairs):
        if name.startswith(RESERVED_PREFIX):
            epoch = epoch or name == EPOCH_HEADER
            continue
        letter = types.get(index)
        value: HeaderValue
        if letter is None and type(data) is bytes:  # nearly every header
            try:
                value = data.decode()
            except UnicodeDecodeError:
                value = data
        else:
            value = _decode_value(data, letter)
        field = _FIELDS.get(name)
        if field and letter is None and value and type(value) is str and field not in fields:
            fields[field] = value
        else:
            user.append((name, value))
    return fields, Headers(tuple(user)) if user else NO_HEADERS, epoch


def headers_of(record: Record) -> RecordHeaders:
    """The record's headers as they are; empty if the client cannot read them."""
    # The client decodes header names as UTF-8 when asked for them; a foreign producer may have
    # written others. Such headers cannot be had at all, and are no reason to stop.
    try:
        headers = record.headers()
    except UnicodeDecodeError:
        return []
    if not headers:
        return []
    return list(headers.items()) if isinstance(headers, dict) else headers


def _timestamp(record: Record) -> int | None:
    kind, milliseconds = record.timestamp()
    return milliseconds if kind != TIMESTAMP_NOT_AVAILABLE and milliseconds >= 0 else None


def _types(pairs: RecordHeaders) -> dict[int, str]:
    # It is ours, hence near the end; foreign relays may have appended headers after it.
    data = None
    for name, value in reversed(pairs):
        if name == TYPES_HEADER:
            data = value
            break
    if not data:
        return {}
    text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
    types: dict[int, str] = {}
    for entry in text.split(","):
        index, _, letter = entry.partition(":")
        if index.isascii() and index.isdigit() and len(index) < 8:
            types[int(index)] = letter
    return types


def _decode_value(data: str | bytes | None, letter: str | None) -> HeaderValue:
    raw = data.encode() if isinstance(data, str) else data or b""
    if letter == "b":
        return raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw
    if letter == "t" and text in ("true", "false"):
        return text == "true"
    if letter == "i" and len(text) <= 20 and text.removeprefix("-").isdecimal() and text.isascii():
        return int(text)
    return text
