"""A delivery as a JSON line: what ``tail``, ``peek``, ``replay`` and ``dlq show`` print."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from gearshift.delivery import Delivery
from gearshift.errors import DecodeError
from gearshift.message import Headers, Message

__all__ = ["record_of", "timestamp"]


def record_of(delivery: Delivery[Any]) -> dict[str, Any]:
    """All that travels with a message. ``gearshift send --envelope`` reads it back.

    What only its broker has a name for is in ``native``: facts to read, and all of it encoded.
    """
    value, encoding = _value(delivery)
    message, position = delivery.message, delivery.position
    record = {
        "id": message.id,
        "key": _wrapped(message.key),
        "headers": _headers(message.headers),
        "timestamp": timestamp(message.timestamp_ms),
        "content_type": message.content_type,
        **_further(message),
        "value": value,
        "encoding": encoding,
        "position": {"partition": position.partition, "offset": position.offset}
        if position
        else None,
        "attempt": delivery.attempt,
    }
    if encoding is None:
        del record["encoding"]
    return record


def _further(message: Message) -> dict[str, Any]:
    """Fields that few messages have, only where there is something in them."""
    names = ("content_encoding", "correlation_id", "reply_to", "type")
    further = {name: value for name in names if (value := getattr(message, name)) is not None}
    native = message.native
    if native is not None:
        further["native"] = {
            "backend": native.backend,
            "properties": {name: _wrapped(value) for name, value in native.properties.items()},
            "data": _base64(msgspec.msgpack.encode(native.data)),
            # The value is what its reader makes of it, which has lost its spaces, say.
            "body": None if message.body is None else _base64(message.body),
        }
    return further


def _value(delivery: Delivery[Any]) -> tuple[Any, str | None]:
    """The body as JSON has it, and its encoding if it had to be wrapped."""
    try:
        value = delivery.value
    except DecodeError:
        value = delivery.body
    if not isinstance(value, bytes):
        return value, None
    try:  # plain text of a sender that did not say so
        return value.decode(), None
    except UnicodeDecodeError:
        return _base64(value), "base64"


def _headers(headers: Headers) -> dict[str, Any]:
    """Names to values; to a list of values where a name repeats."""
    return {name: values[0] if len(values) == 1 else values for name, values in _grouped(headers)}


def _grouped(headers: Headers) -> Iterator[tuple[str, list[Any]]]:
    for name in headers:
        yield name, [_wrapped(value) for value in headers.getall(name)]


def _wrapped(value: object) -> object:
    return {"base64": _base64(value)} if isinstance(value, bytes) else value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def timestamp(milliseconds: int | None) -> str | None:
    """Unix time as ISO 8601 in UTC; None for what is not a moment."""
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a foreign sender's nonsense
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
