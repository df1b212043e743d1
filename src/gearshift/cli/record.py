"""A delivery as a JSON line: what ``tail``, ``peek``, ``replay`` and ``dlq show`` print."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from gearshift.delivery import Delivery
from gearshift.errors import DecodeError
from gearshift.message import Headers

__all__ = ["record_of", "timestamp"]


def record_of(delivery: Delivery[Any]) -> dict[str, Any]:
    """All that travels with a message. ``gearshift send --envelope`` reads it back."""
    value, encoding = _value(delivery)
    message, position = delivery.message, delivery.position
    record = {
        "id": message.id,
        "key": message.key,
        "headers": _headers(message.headers),
        "timestamp": timestamp(message.timestamp_ms),
        "content_type": message.content_type,
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
        return base64.b64encode(value).decode(), "base64"


def _headers(headers: Headers) -> dict[str, Any]:
    """Names to values; to a list of values where a name repeats."""
    return {name: values[0] if len(values) == 1 else values for name, values in _grouped(headers)}


def _grouped(headers: Headers) -> Iterator[tuple[str, list[Any]]]:
    for name in headers:
        yield name, [_header(value) for value in headers.getall(name)]


def _header(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def timestamp(milliseconds: int | None) -> str | None:
    """Unix time as ISO 8601 in UTC; None for what is no moment."""
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a foreign sender's nonsense
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
