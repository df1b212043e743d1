"""The forms of a line that ``send`` takes.

Each raises ValueError for what is not of this form, and what ``Producer.message`` raises.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from gearshift.codecs import JSON
from gearshift.message import Headers, HeaderValue, Message, Native, message_id
from gearshift.producer import Producer
from gearshift.validation import validate_headers

__all__ = ["LineParser", "enveloped", "json_value", "raw_text"]

Pairs: TypeAlias = Sequence[tuple[str, HeaderValue]]

#: Producer, fixed headers and line to a message; None for a line that holds none.
LineParser: TypeAlias = Callable[[Producer, Pairs, bytes], Message | None]


class NativePart(msgspec.Struct, forbid_unknown_fields=True):
    """The part that only ``backend`` has names for. ``data`` is MessagePack in base64."""

    backend: str
    data: str
    body: str | None
    properties: dict[str, Any] = {}


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """A message with all that travels with it. ``position`` and ``attempt`` are tail's; ignored."""

    value: Any
    key: Any = None
    headers: dict[str, Any] = {}
    id: str | None = None
    timestamp: datetime | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    native: NativePart | None = None
    encoding: str | None = None
    position: Any = None
    attempt: Any = None


def raw_text(producer: Producer, headers: Pairs, line: bytes) -> Message:
    """The line as text, blank ones included."""
    return producer.message(line.decode(), headers=headers)


def json_value(
    producer: Producer, headers: Pairs, line: bytes, *, key_field: str | None = None
) -> Message | None:
    """The line as a JSON value; blank lines hold none."""
    if not line.strip():
        return None
    value = _parse(line, Any)
    key = None if key_field is None else _key(value, key_field)
    if value is None:  # JSON's null is a body; only an envelope makes a message without one
        return Message(b"null", key, validate_headers(headers), message_id(), JSON)
    return producer.message(value, key=key, headers=headers)


def enveloped(producer: Producer, headers: Pairs, line: bytes) -> Message | None:
    """The line as an Envelope; blank lines hold none."""
    if not line.strip():
        return None
    envelope = _parse(line, Envelope)
    moment = envelope.timestamp
    fields: dict[str, Any] = {
        "key": _unwrapped(envelope.key),
        "headers": [*headers, *_pairs(envelope.headers)],
        "id": envelope.id,
        "content_type": envelope.content_type,
        "timestamp_ms": None if moment is None else round(moment.timestamp() * 1000),
        "correlation_id": envelope.correlation_id,
        "reply_to": envelope.reply_to,
        "type": envelope.type,
        "content_encoding": envelope.content_encoding,
    }
    if envelope.native is None:
        return producer.message(_body(envelope), **fields)
    # It came from a broker, so its names and texts are not ours to judge.
    body = None if envelope.native.body is None else _bytes(envelope.native.body)
    facts = envelope.native.properties
    native = Native(envelope.native.backend, _data(envelope.native), facts)
    return Message(body, native=native, **fields | {"headers": Headers(fields["headers"])})


def _data(native: NativePart) -> object:
    try:
        return msgspec.msgpack.decode(_bytes(native.data))
    except msgspec.MsgspecError as error:
        raise ValueError(f"native: the data is not what tail wrote: {error}") from None


def _parse(line: bytes, form: Any) -> Any:
    try:
        return msgspec.json.decode(line, type=form)
    except RecursionError:  # its text differs from one Python to the next
        raise ValueError("JSON is nested too deeply") from None


def _body(envelope: Envelope) -> object:
    if envelope.encoding is None:
        return envelope.value
    if envelope.encoding != "base64":
        raise ValueError(f"unknown encoding {envelope.encoding!r}, the only one is 'base64'")
    return _bytes(envelope.value)


def _pairs(headers: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in headers.items():
        for one in value if isinstance(value, list) else [value]:
            yield name, _unwrapped(one)


def _unwrapped(value: Any) -> Any:
    """Bytes, of what JSON has no text for, or the value itself."""
    wrapped = isinstance(value, dict) and list(value) == ["base64"]
    return _bytes(value["base64"]) if wrapped else value


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("base64 is a text in quotes")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"not valid base64: {error}") from None


def _key(value: object, field: str) -> str:
    """The text or whole number in ``field``."""
    if not isinstance(value, dict):
        raise ValueError(f"--key-field {field!r}: the line is not a JSON object")
    key = value.get(field)
    if isinstance(key, bool) or not isinstance(key, str | int):
        what = "has no such field" if field not in value else "is neither text nor a whole number"
        raise ValueError(f"--key-field {field!r}: {what}")
    return str(key)
