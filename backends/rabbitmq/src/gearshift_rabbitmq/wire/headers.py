"""AMQP headers: those of a Message, the broker's own and ours; their names and values.

A Message's header is a long string, a byte array, an integer of 64 bits or a boolean. A repeated
name is an array, but JSON in ``gearshift-repeated`` in a stream, which keeps no arrays.
"""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import msgspec
from pika.compat import long

from gearshift.errors import InvalidMessage
from gearshift.message import (
    NO_HEADERS,
    RESERVED_PREFIX,
    Headers,
    HeaderValue,
    Key,
    as_key,
)
from gearshift_rabbitmq.wire.properties import HIDDEN, Field

__all__ = [
    "ATTEMPT",
    "BACKEND",
    "DELIVERY_COUNT",
    "EXPIRATION",
    "KEY",
    "LOST",
    "ONLY_HERE",
    "RESERVED",
    "ROUTING_KEY",
    "TIMESTAMP",
    "TYPED",
    "USER_ID",
    "as_headers",
    "as_name",
    "as_number",
    "as_routing_key",
    "as_table",
    "as_text",
    "as_values",
    "has_decimal",
    "is_hidden",
    "may_go",
]

BACKEND = "rabbitmq"

KEY = "gearshift-key"
ATTEMPT = "gearshift-attempt"
LOST = "gearshift-lost"
REPEATED = "gearshift-repeated"
EXPIRATION = "gearshift-expiration"
USER_ID = "gearshift-user-id"
ROUTING_KEY = "gearshift-routing-key"
TIMESTAMP = "timestamp_in_ms"
DELIVERY_COUNT = "x-delivery-count"

#: Names in Native.properties of what is no property: see ``plugin``.
TYPED = "typed_headers"
RESERVED = "reserved_headers"

#: What only RabbitMQ carries of them, and what becomes of it elsewhere.
ONLY_HERE = {
    **dict.fromkeys((*HIDDEN, "routing_key", RESERVED), "left out"),
    TYPED: "as text (None, floats, times, tables), or one for each item of an array",
}

#: What brokers put on a message for themselves: never shown, and stripped when stored again.
_BROKER_HEADERS = frozenset(
    {DELIVERY_COUNT, "x-acquired-count", "x-death", "x-stream-offset", TIMESTAMP}
    | {
        f"x-{end}-death-{what}"
        for end in ("first", "last")
        for what in ("exchange", "queue", "reason")
    }
)
#: Not data but routing instructions to the broker, which closes the AMQP channel over wrong ones.
_ROUTING_HEADERS = frozenset({"CC", "BCC"})
_NOT_FOR_SENDERS = _BROKER_HEADERS | _ROUTING_HEADERS
_OURS = frozenset({KEY, ATTEMPT, LOST, REPEATED, EXPIRATION, USER_ID, ROUTING_KEY})
_PREFIX_LENGTH = len(RESERVED_PREFIX)


def may_go(one: Field) -> bool:
    """Whether a header may be sent again."""
    return one.name not in _NOT_FOR_SENDERS and one.name not in _OURS


def as_table(headers: Headers, arrays: bool) -> dict[str, Any]:
    table: dict[str, Any] = {}
    repeated: dict[str, list[Any]] = {}
    for name, value in headers.pairs:
        if name in _NOT_FOR_SENDERS:
            raise InvalidMessage(
                f"header {name!r} has a meaning of its own in RabbitMQ", hint="choose another name"
            )
        # pika writes an int in 32 bits where it fits; 64 bits for all is one type for readers.
        wire = long(value) if type(value) is int else value
        if name in table:
            repeated.setdefault(name, [table[name]]).append(wire)
        else:
            table[name] = wire
    if arrays:
        return table | repeated
    if repeated:
        table[REPEATED] = msgspec.json.encode(
            {name: [_tagged(value) for value in values] for name, values in repeated.items()}
        ).decode()
    return table


def as_headers(table: dict[Any, Any]) -> Headers:
    pairs: list[tuple[str, HeaderValue]] = []
    if REPEATED in table:
        table = table | _repeated(table)
    for raw_name, value in table.items():
        if raw_name in _BROKER_HEADERS:
            continue
        name = as_name(raw_name)
        if is_hidden(name):
            continue
        if type(value) is str:
            pairs.append((name, value))
        elif type(value) is list:
            pairs.extend((name, _value(item)) for item in value)
        else:
            pairs.append((name, _value(value)))
    return Headers(pairs) if pairs else NO_HEADERS


def as_values(value: Any) -> list[HeaderValue]:
    """What is shown of one header."""
    return [_value(item) for item in value] if type(value) is list else [_value(value)]


def as_name(raw: Any) -> str:
    return raw if type(raw) is str else _decoded(raw)


def is_hidden(name: str) -> bool:
    return name[:_PREFIX_LENGTH].lower() == RESERVED_PREFIX


def as_text(value: str | bytes | None) -> str | None:
    if not value:
        return None
    return value if type(value) is str else _decoded(value)


def as_routing_key(value: Any) -> Key | None:
    if isinstance(value, bytes):
        return as_key(value)
    return value if isinstance(value, str) else str(value)


def as_number(value: Any, most: int) -> int | None:
    """A number from 0 to ``most``; None if it is anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return int(value)
    return None


def has_decimal(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(has_decimal, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Decimal)


def _repeated(table: dict[Any, Any]) -> dict[str, list[Any]]:
    """Values of repeated names that a stream carries as JSON; nothing if a foreigner wrote it."""
    try:
        found = msgspec.json.decode(table[REPEATED], type=dict[str, list[Any]])
        return {name: [_untagged(value) for value in values] for name, values in found.items()}
    except (ValueError, TypeError, KeyError):
        return {}


def _tagged(value: Any) -> Any:
    """``value`` as JSON that tells bytes from text."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _untagged(value: Any) -> Any:
    return base64.b64decode(value["bytes"]) if isinstance(value, dict) else value


def _value(value: Any) -> HeaderValue:
    if isinstance(value, str | bytes | bool):
        return value
    if isinstance(value, int):
        return int(value)  # pika's marker type for 64 bits prints as '5L'
    if isinstance(value, dict | list):
        return str(_plain(value))
    return str(value)


def _plain(value: Any) -> Any:
    """``value`` without pika's marker types, so that its text reads like Python's."""
    if isinstance(value, dict):
        return {_plain(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _decoded(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
