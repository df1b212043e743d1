"""Messages as Kafka records and back. Reading never fails, whoever wrote the record.

Key, body and timestamp have native places. ``content-type``, ``message-id``, ``correlation-id``,
``reply-to`` and ``type`` travel as headers of those names, before the user's own; where the user
has a header of such a name too, the first one is ours. Header values are bytes on this broker: for
values that are not text ``gearshift-header-types`` says what each was.
"""

from __future__ import annotations

from typing import Any

from gearshift.message import NO_HEADERS, RESERVED_PREFIX, Headers, HeaderValue, Message

__all__ = ["from_record", "to_headers"]

TYPES = "gearshift-header-types"
_FIELDS = {
    "message-id": "id",
    "content-type": "content_type",
    "correlation-id": "correlation_id",
    "reply-to": "reply_to",
    "type": "type",
}
_NO_TIMESTAMP = 0

WireHeaders = list[tuple[str, str | bytes | None]]


def to_headers(message: Message) -> WireHeaders:
    """The record's headers."""
    headers: WireHeaders = []
    if message.id is not None:
        headers.append(("message-id", message.id.encode()))
    if message.content_type is not None:
        headers.append(("content-type", message.content_type.encode()))
    if message.correlation_id is not None:
        headers.append(("correlation-id", message.correlation_id.encode()))
    if message.reply_to is not None:
        headers.append(("reply-to", message.reply_to.encode()))
    if message.type is not None:
        headers.append(("type", message.type.encode()))
    if message.headers.pairs:
        _add_user_headers(headers, message)
    return headers


def _add_user_headers(headers: WireHeaders, message: Message) -> None:
    """The user's headers and, if they need one, the note on their types.

    The note is a list with one entry a user header: "s" text, "b" bytes, "i" int, "t" bool. It is
    also needed where a user's header has the name of a field that the message does not set.
    """
    pairs = message.headers.pairs
    shadows = any(name in _FIELDS for name, _ in pairs)
    if shadows or any(not isinstance(value, str) for _, value in pairs):
        kinds = "".join(_kind(value) for _, value in pairs)
        headers.append((TYPES, f"{len(headers)}:{kinds}".encode()))
    headers += [(name, _to_bytes(value)) for name, value in pairs]


def _kind(value: HeaderValue) -> str:
    if isinstance(value, str):
        return "s"
    if isinstance(value, bytes):
        return "b"
    return "t" if isinstance(value, bool) else "i"


def _to_bytes(value: HeaderValue) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return str(int(value)).encode() if not isinstance(value, bool) else (b"1" if value else b"0")


def from_record(record: Any) -> Message:
    """The message in a confluent_kafka.Message; anything foreign is kept as well as it can be."""
    kind, timestamp_ms = record.timestamp()
    key = record.key()
    raw = record.headers()
    headers, fields = _read_headers(raw) if raw else (NO_HEADERS, {})
    return Message(
        record.value(),
        None if key is None else key.decode("utf-8", "surrogateescape"),
        headers,
        fields.get("id"),
        fields.get("content_type"),
        timestamp_ms if kind != _NO_TIMESTAMP else None,
        fields.get("correlation_id"),
        fields.get("reply_to"),
        fields.get("type"),
    )


def _read_headers(raw: list[tuple[str, bytes | None]]) -> tuple[Headers, dict[str, str]]:
    fields: dict[str, str] = {}
    count, kinds = _types_note(raw)
    pairs: list[tuple[str, HeaderValue]] = []
    for place, (name, value) in enumerate(raw):
        field = _FIELDS.get(name)
        is_ours = place < count if kinds is not None else True
        if field is not None and is_ours and field not in fields:
            fields[field] = (value or b"").decode("utf-8", "replace")
        elif not name.startswith(RESERVED_PREFIX):
            kind = kinds[len(pairs)] if kinds is not None and len(pairs) < len(kinds) else None
            pairs.append((name, _from_bytes(value or b"", kind)))
    return (Headers(pairs) if pairs else NO_HEADERS), fields


def _types_note(raw: list[tuple[str, bytes | None]]) -> tuple[int, str | None]:
    """How many headers before the note are ours, and the kinds of the user's; None without note."""
    for name, value in raw:
        if name == TYPES and value is not None:
            count, _, kinds = value.decode("utf-8", "replace").partition(":")
            if count.isascii() and count.isdigit():
                return int(count), kinds
    return 0, None


def _from_bytes(value: bytes, kind: str | None) -> HeaderValue:
    try:
        if kind == "b":
            return value
        if kind == "i":
            return int(value)
        if kind == "t":
            return value == b"1"
        return value.decode()
    except ValueError:
        return value  # not text after all: bytes say it as it is
