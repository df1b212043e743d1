"""Message <-> Kafka record: key, value, timestamp and headers, exactly, both ways.

The key is the record's key, the body its value, ``None`` a tombstone. The fields ``content_type``,
``id``, ``correlation_id``, ``reply_to``, ``type`` and ``content_encoding`` travel as the headers
``content-type``, ``message-id``, ``correlation-id``, ``reply-to``, ``type`` and
``content-encoding``, the user's headers after them in their order. Kafka headers are bytes; ``str``
values go as UTF-8, ``int`` and ``bool`` as text. What that loses is kept in one more header, only
where there is something to keep: ``gearshift-header-types`` lists ``index:letter`` for headers
whose value is not a ``str`` (``b`` bytes, ``i`` int, ``t`` bool) or whose name is one of those
above although it is the user's own (``s`` str). The index counts the record's headers from 0. A
record from elsewhere has no such list: there the first text under one of these names is the field.
Headers that begin with ``gearshift-`` are not shown.

The timestamp is the record's. Where the record needs another (see ``times``), the message's own is
in the header ``gearshift-timestamp-ms``, and is read from there.

A record that Gearshift would have written otherwise keeps its headers in the message's ``native``
part. Sent to a Kafka channel again, those that still say the same leave as they came, in their
order: also those without value, which are shown as ``""``, and names that we refuse from callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE
from confluent_kafka import Message as Record

from gearshift.driver.helpers import UnreadMessage, is_plain_name
from gearshift.errors import InvalidMessage
from gearshift.message import (
    NO_HEADERS,
    RESERVED_PREFIX,
    Headers,
    HeaderValue,
    Key,
    Message,
    Native,
    as_key,
    key_bytes,
)

__all__ = [
    "BACKEND",
    "ONLY_HERE",
    "TIME_HEADER",
    "RecordHeaders",
    "UnreadRecord",
    "decode",
    "decode_headers",
    "encode_headers",
    "encode_key",
    "headers_of",
    "number_in",
]

BACKEND: Final = "kafka"

RecordHeaders: TypeAlias = list[tuple[str, str | bytes | None]]

TYPES_HEADER: Final = "gearshift-header-types"
#: The message's timestamp, where it is not the record's.
TIME_HEADER: Final = "gearshift-timestamp-ms"

#: Names in Native.properties, and what becomes of what they name on another broker.
RESERVED: Final = "reserved_headers"
EMPTY: Final = "headers_without_value"
ONLY_HERE: Final = {RESERVED: "left out", EMPTY: "as empty text"}

_FIELDS: Final = {
    "content-type": "content_type",
    "message-id": "id",
    "correlation-id": "correlation_id",
    "reply-to": "reply_to",
    "type": "type",
    "content-encoding": "content_encoding",
}

#: What we write besides, here and in ``queue.delays``.
_OURS: Final = frozenset((
    TYPES_HEADER, TIME_HEADER, "gearshift-attempts", "gearshift-lost", "gearshift-due-ms",
))  # fmt: skip


def encode_key(key: Key | None) -> bytes | None:
    """The record key."""
    return None if key is None else key_bytes(key)


def encode_headers(message: Message, *, with_time: bool = False) -> RecordHeaders:
    """The record's headers, ``with_time`` the message's timestamp among them.

    Raises InvalidMessage for a native part that is not Kafka's.
    """
    native = message.native
    if native is not None and native.backend == BACKEND:
        headers = _as_they_came(message, native)
    else:
        headers = _as_ours(message)
    if with_time and message.timestamp_ms is not None:
        headers.append((TIME_HEADER, str(message.timestamp_ms)))
    return headers


def _as_ours(message: Message) -> RecordHeaders:
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
    if message.content_encoding is not None:
        add(("content-encoding", message.content_encoding))
    if message.headers.pairs:
        _add_user_headers(headers, message.headers.pairs)
    return headers


def _as_they_came(message: Message, native: Native) -> RecordHeaders:
    """The headers that a foreign record came with, where they still say the same, then others."""
    headers: RecordHeaders = []
    try:
        came: RecordHeaders = [(name, value) for name, value in native.data]
        fields = {name: getattr(message, field) for name, field in _FIELDS.items()}
        wanted = list(message.headers.pairs)
        for name, data, value, is_field in _read(came):
            if name in _OURS:
                continue
            if is_field:
                if fields.get(name) == value:
                    headers.append((name, data))
                    del fields[name]
            elif value is None:
                headers.append((name, data))
            elif (name, value) in wanted:
                wanted.remove((name, value))
                headers.append((name, data))
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidMessage(
            f"the message's native part is not Kafka's: {error!r}", hint="leave it out"
        ) from None
    headers += [(name, value) for name, value in fields.items() if value is not None]
    _add_user_headers(headers, wanted)
    return headers


def _add_user_headers(headers: RecordHeaders, pairs: Iterable[tuple[str, HeaderValue]]) -> None:
    types: list[str] = []
    for name, value in pairs:
        if isinstance(value, str):
            if name in _FIELDS:
                types.append(f"{len(headers)}:s")
            headers.append((name, value.encode()))  # the client ends a str at its first NUL
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


class UnreadRecord(UnreadMessage, frozen=True, gc=False):
    """The message in the record ``source``, read when it is asked for."""

    def read(self) -> Message:
        return decode(self.source)

    def has_header(self, name: str) -> bool:
        return name in dict(headers_of(self.source)) and super().has_header(name)


def decode(record: Record) -> Message:
    """The message in a record, whoever wrote it; never raises.

    Bytes that are not UTF-8 stay bytes, in headers and as the key; a header without value becomes
    ``""``.
    """
    key: Any = record.key()
    value = record.value()
    came = headers_of(record)
    body = value if value is None or isinstance(value, bytes) else value.encode()
    key = as_key(key) if isinstance(key, bytes) else key
    fields = _plain_fields(came)
    if fields is not None:
        return Message(body, key, timestamp_ms=_timestamp(record), **fields)
    texts, headers = decode_headers(came)
    own_time_ms = number_in(came, TIME_HEADER)
    fields = dict(
        texts,
        headers=headers,
        timestamp_ms=_timestamp(record) if own_time_ms is None else own_time_ms,
        native=None if _is_ours(came, texts) else Native(BACKEND, came, _odd_headers(came)),
    )
    return Message(body, key, **fields)


def _plain_fields(pairs: RecordHeaders) -> dict[str, Any] | None:
    """Fields and headers where all is text that we would have written so; None for any other.

    Nearly every record is one of these, and the full reading costs three times as much.
    """
    fields: dict[str, Any] = {}
    user: list[tuple[str, HeaderValue]] = []
    try:
        for name, data in pairs:
            text = data.decode()  # type: ignore[union-attr]
            field = _FIELDS.get(name)
            if field is None and is_plain_name(name):
                user.append((name, text))
            elif field is None or user or not text or field in fields:
                return None
            else:
                fields[field] = text
    except (UnicodeDecodeError, AttributeError):
        return None
    if user:
        fields["headers"] = Headers(tuple(user))
    return fields if "id" in fields else None


def decode_headers(pairs: RecordHeaders) -> tuple[dict[str, str], Headers]:
    """Message fields and the user's headers."""
    fields: dict[str, str] = {}
    user: list[tuple[str, HeaderValue]] = []
    for name, _, value, is_field in _read(pairs):
        if value is None:
            continue
        if is_field:
            fields[_FIELDS[name]] = str(value)
        else:
            user.append((name, value))
    return fields, Headers(tuple(user)) if user else NO_HEADERS


def number_in(pairs: RecordHeaders, name: str) -> int | None:
    """The whole number in one of our headers; None if it is missing or is not one."""
    for key, value in pairs:
        if key == name:
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value or ""
            return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    return None


def _read(
    pairs: RecordHeaders,
) -> Iterator[tuple[str, str | bytes | None, HeaderValue | None, bool]]:
    """Each header: its name, its data, the value shown or None, and whether it is a field."""
    types = _types(pairs)
    found: set[str] = set()
    for index, (name, data) in enumerate(pairs):
        if name.startswith(RESERVED_PREFIX):
            yield name, data, None, False
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
        is_field = (
            bool(name in _FIELDS and letter is None and value and type(value) is str)
            and name not in found
        )
        if is_field:
            found.add(name)
        yield name, data, value, is_field


def _odd_headers(pairs: RecordHeaders) -> dict[str, list[str]]:
    """Names of headers without a value, and of those that are not shown."""
    odd: dict[str, list[str]] = {}
    for name, data in pairs:
        if name.startswith(RESERVED_PREFIX):
            if name not in _OURS:
                odd.setdefault(RESERVED, []).append(name)
        elif data is None:
            odd.setdefault(EMPTY, []).append(name)
    return odd


def _is_ours(pairs: RecordHeaders, fields: dict[str, str]) -> bool:
    """True if a Message has a field for all that a record's headers hold, and for their order."""
    if "id" not in fields:
        return False
    in_fields = True
    for name, data in pairs:
        if name.startswith(RESERVED_PREFIX):
            if name not in _OURS:
                return False
        elif data is None or not is_plain_name(name):
            return False
        elif name not in _FIELDS:
            in_fields = False
        elif not in_fields and not any(pair[0] == TYPES_HEADER for pair in pairs):
            return False
    return True


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
