"""Message <-> AMQP: which field travels in which property or header, and back without surprises.

=================  ==========================================================================
message            on the wire
=================  ==========================================================================
key                routing key; header ``gearshift-key`` where the routing key has another job
id                 ``message_id``
timestamp_ms       ``timestamp`` (whole seconds) and header ``timestamp_in_ms``, as the broker's
                   own timestamp interceptor names it
headers            str: long string, bytes: byte array, int: 64 bits, bool; a repeated name: array,
                   but JSON in ``gearshift-repeated`` in a stream, which keeps no arrays
the other fields   the property of the same name
=================  ==========================================================================

RabbitMQ sorts a message's headers by name; values of one name keep their order.

Nothing that a foreign client can send makes receiving fail: what a Message cannot hold becomes
text, and what the broker added for its own purposes is not shown.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec
from pika.compat import long
from pika.spec import Basic, BasicProperties

from gearshift.driver import Incoming
from gearshift.errors import InvalidMessage, NotSupported
from gearshift.message import NO_HEADERS, RESERVED_PREFIX, Headers, HeaderValue, Message

__all__ = ["Token", "incoming", "properties_of", "retried"]

KEY = "gearshift-key"
ATTEMPT = "gearshift-attempt"
REPEATED = "gearshift-repeated"
TIMESTAMP = "timestamp_in_ms"
DELIVERY_COUNT = "x-delivery-count"

#: A return to the queue says little of a message: mostly it only lay in the buffer of a consumer
#: that closed. So many of them count as one attempt, and a message that kills its workers ends too.
RETURNS_PER_ATTEMPT = 10

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
_PREFIX_LENGTH = len(RESERVED_PREFIX)
_MAX_COUNT = 1_000_000
_MAX_MS = 2**63 - 1


class Token(NamedTuple):
    """What settles a delivery: its tag, attempts known before it, and how it came."""

    tag: int
    before: int
    properties: BasicProperties


def properties_of(message: Message, *, key_in_header: bool, arrays: bool = True) -> BasicProperties:
    """Properties for ``message``. Raises InvalidMessage for what the broker would choke on."""
    if message.body is None:
        raise NotSupported(
            "RabbitMQ has no message without a body", hint='send b"" instead of None'
        )
    headers: dict[str, Any] = _headers_of(message.headers, arrays) if message.headers.pairs else {}
    seconds = None
    if message.timestamp_ms is not None:
        seconds = message.timestamp_ms // 1000
        headers[TIMESTAMP] = long(message.timestamp_ms)
    if key_in_header and message.key is not None:
        headers[KEY] = message.key
    if message.reply_to == "amq.rabbitmq.reply-to":
        raise InvalidMessage(
            "reply_to names RabbitMQ's direct reply-to, which needs a raw AMQP client"
        )
    return BasicProperties(
        content_type=message.content_type,
        headers=headers or None,
        delivery_mode=2,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id=message.id,
        timestamp=seconds,
        type=message.type,
    )


def incoming(
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
    counted: bool,
    *,
    key_from_routing: bool = True,
) -> Incoming:
    """A delivery as core wants it. Never raises on what a foreign client sent.

    ``counted`` says that the queue is a quorum queue of ours, so that no count means none yet;
    elsewhere a redelivered message without a count has an unknown attempt.
    """
    pairs, key, before, count, timestamp_ms = NO_HEADERS, None, 0, None, None
    if properties.headers:
        headers = properties.headers
        before = _count(headers.get(ATTEMPT)) or 0
        count = _count(headers.get(DELIVERY_COUNT))
        timestamp_ms = _milliseconds(headers.get(TIMESTAMP))
        if KEY in headers:
            key = _text(headers[KEY])
        pairs = _shown(headers)
    if key is None and key_from_routing and method.exchange:
        # On the default exchange the routing key is only a queue's name.
        key = _text(method.routing_key)
    if timestamp_ms is None and properties.timestamp is not None:
        timestamp_ms = _milliseconds(properties.timestamp * 1000)
    redelivered = bool(method.redelivered or before or count)
    attempt: int | None = before + 1
    if count is not None:
        attempt = before + 1 + count // RETURNS_PER_ATTEMPT
    elif method.redelivered and not counted:
        attempt = None
    message = Message(
        body,
        key,
        pairs,
        _text(properties.message_id),
        _text(properties.content_type),
        timestamp_ms,
        _text(properties.correlation_id),
        _text(properties.reply_to),
        _text(properties.type),
    )
    return Incoming(
        message, Token(method.delivery_tag, before, properties), None, attempt, redelivered
    )


def retried(
    properties: BasicProperties, *, key: str | None, failed: int, expiration_ms: int | None
) -> BasicProperties:
    """Properties for storing a delivery again: as it came, less what would act a second time.

    Foreign properties and header types that a Message cannot hold survive. ``user_id`` goes, as
    the broker compares it with the connection's user; so does ``CC``, which would fan out again.
    """
    old = properties.headers or {}
    headers = {n: v for n, v in old.items() if n == TIMESTAMP or n not in _NOT_FOR_SENDERS}
    headers[ATTEMPT] = long(failed)
    if key is not None:
        headers[KEY] = key
    return BasicProperties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=headers,
        delivery_mode=2,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=None if expiration_ms is None else str(expiration_ms),
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
        app_id=properties.app_id,
    )


def _headers_of(headers: Headers, arrays: bool) -> dict[str, Any]:
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


def _tagged(value: Any) -> Any:
    """``value`` as JSON that tells bytes from text."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _untagged(value: Any) -> Any:
    return base64.b64decode(value["bytes"]) if isinstance(value, dict) else value


def _repeated(table: dict[Any, Any]) -> dict[str, list[Any]]:
    """Values of repeated names that a stream carries as JSON; nothing if a foreigner wrote it."""
    try:
        found = msgspec.json.decode(table[REPEATED], type=dict[str, list[Any]])
        return {name: [_untagged(value) for value in values] for name, values in found.items()}
    except (ValueError, TypeError, KeyError):
        return {}


def _shown(table: dict[Any, Any]) -> Headers:
    pairs: list[tuple[str, HeaderValue]] = []
    if REPEATED in table:
        table = table | _repeated(table)
    for raw_name, value in table.items():
        if raw_name in _BROKER_HEADERS:
            continue
        name = raw_name if type(raw_name) is str else _decoded(raw_name)
        if name[:_PREFIX_LENGTH].lower() == RESERVED_PREFIX:
            continue
        if type(value) is str:
            pairs.append((name, value))
        elif type(value) is list:
            pairs.extend((name, _value(item)) for item in value)
        else:
            pairs.append((name, _value(value)))
    return Headers(pairs) if pairs else NO_HEADERS


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


def _count(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT:
        return int(value)
    return None


def _milliseconds(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_MS:
        return int(value)
    return None


def _text(value: str | bytes | None) -> str | None:
    if not value:
        return None
    return value if type(value) is str else _decoded(value)


def _decoded(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
