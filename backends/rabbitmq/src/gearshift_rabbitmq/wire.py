"""Message <-> AMQP: which field travels in which property or header, and back without surprises.

=================  ==========================================================================
message            on the wire
=================  ==========================================================================
key                routing key; header ``gearshift-key`` where the routing key has another job, or
                   cannot hold it: bytes, an empty key, one of over 255 bytes
id                 ``message_id``
timestamp_ms       ``timestamp`` (whole seconds) and header ``timestamp_in_ms``, as the broker's
                   own timestamp interceptor names it
headers            str: long string, bytes: byte array, int: 64 bits, bool; a repeated name: array,
                   but JSON in ``gearshift-repeated`` in a stream, which keeps no arrays
native             everything else of a foreign message, see below
the other fields   the property of the same name
=================  ==========================================================================

RabbitMQ sorts a message's headers by name; values of one name keep their order.

Nothing that a foreign client can send makes receiving fail. What a Message cannot hold is shown as
text, what the broker added for its own purposes is not shown, and the encoded properties are kept
in ``native``: sent to a RabbitMQ channel again, every header that was not changed leaves with the
bytes that it came with, and every property too. Not kept are the broker's own headers, ``CC`` and
``BCC``, which would fan out a second time, and a ``user_id`` that is not the connection's, which
the broker refuses. An ``expiration`` must not end a copy that waits for a retry or lies among dead
letters, nor does such a copy come under its first routing key: both travel in headers of ours
(``gearshift-expiration``, ``gearshift-routing-key``), and redrive makes properties of them again.
"""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from pika.compat import long
from pika.spec import Basic, BasicProperties

from gearshift.driver import Received
from gearshift.errors import InvalidMessage, MessageTooLarge, NotSupported
from gearshift.message import (
    NO_HEADERS,
    RESERVED_PREFIX,
    Headers,
    HeaderValue,
    Key,
    Message,
    Native,
    as_key,
)
from gearshift_rabbitmq.properties import HIDDEN, Field, Properties, field

__all__ = [
    "BACKEND",
    "ONLY_HERE",
    "Token",
    "first_routing_key",
    "incoming",
    "properties_of",
    "retried",
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
#: Headers of these types come back from a Message as they were: see ``_headers_of``.
_PLAIN_TYPES = frozenset(b"Sxlt")
#: Properties and headers go in one frame, of at most 128 KiB unless the broker's settings differ.
_MOST_HEADER_BYTES = 120_000
_PREFIX_LENGTH = len(RESERVED_PREFIX)
_MAX_COUNT = 1_000_000
_MAX_MS = 2**63 - 1


class Token(NamedTuple):
    """What settles a delivery: its tag, and how it came. ``before`` and ``lost`` are what its
    headers say: attempts that failed, and losses since (see gearshift._core.consuming.suspects)."""

    tag: int
    before: int
    lost: int
    properties: Properties


def properties_of(
    message: Message, *, key_in_header: bool, arrays: bool = True, user: str | None = None
) -> BasicProperties:
    """Properties for ``message``. Raises InvalidMessage for what the broker would choke on.

    ``user`` is the connection's: the only ``user_id`` that the broker takes.
    """
    if message.body is None:
        raise NotSupported(
            "RabbitMQ has no message without a body", hint='send b"" instead of None'
        )
    if message.size - len(message.body) > _MOST_HEADER_BYTES:
        raise MessageTooLarge(
            f"key and headers have {message.size - len(message.body)} bytes, "
            f"RabbitMQ takes {_MOST_HEADER_BYTES}",
            hint="move some of it into the body",
        )
    if message.reply_to == "amq.rabbitmq.reply-to":
        raise InvalidMessage(
            "reply_to names RabbitMQ's direct reply-to, which needs a raw AMQP client"
        )
    native = message.native
    if native is not None and native.backend == BACKEND:
        return _as_it_came(message, native, key_in_header, arrays, user)
    headers: dict[str, Any] = _headers_of(message.headers, arrays) if message.headers.pairs else {}
    seconds = None
    if message.timestamp_ms is not None:
        seconds = message.timestamp_ms // 1000
        headers[TIMESTAMP] = long(message.timestamp_ms)
    if key_in_header and message.key is not None:
        headers[KEY] = message.key
    return BasicProperties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers or None,
        delivery_mode=2,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id=message.id,
        timestamp=seconds,
        type=message.type,
    )


def first_routing_key(message: Message) -> str | bytes | None:
    """The routing key under which ``message`` was first published; None if that is not known."""
    native = message.native
    if native is None or native.backend != BACKEND:
        return None
    key: str | bytes | None = native.data[1]
    return key


def incoming(
    method: Basic.Deliver | Basic.GetOk,
    properties: Properties,
    body: bytes,
    *,
    flag_is_loss: bool = False,
    key_from_routing: bool = True,
    routed: bool = True,
    locked_until: float | None = None,
    return_at: float | None = None,
) -> Received:
    """A delivery as core wants it. Never raises on what a foreign client sent.

    Whatever the broker has counted since the message was stored is one more loss than its header
    says: before 4.3 also an orderly return counts, so more than one proves nothing. With
    ``flag_is_loss`` the redelivered flag is one too, for queues that count nothing.
    ``key_from_routing`` is false where the routing key names a route that messages share, and
    ``routed`` where it was chosen by us and not by the sender.
    """
    pairs, key, before, lost, count, timestamp_ms = NO_HEADERS, None, 0, 0, None, None
    foreign = True
    # On the default exchange the routing key is only a queue's name.
    route = method.routing_key if routed and method.exchange else None
    if properties.headers:
        headers = properties.headers
        before = _count(headers.get(ATTEMPT)) or 0
        lost = _count(headers.get(LOST)) or 0
        count = _count(headers.get(DELIVERY_COUNT))
        timestamp_ms = _milliseconds(headers.get(TIMESTAMP))
        if KEY in headers:
            key = _key(headers[KEY])
        if EXPIRATION in headers:
            properties.expiration = _text(headers[EXPIRATION])
        if USER_ID in headers:
            properties.user_id = _text(headers[USER_ID])
        if ROUTING_KEY in headers:
            route = headers[ROUTING_KEY]
        pairs = _shown(headers)
        foreign = not _is_ours(properties)
    if key is None and key_from_routing and route:
        key = _key(route)
    if timestamp_ms is None and properties.timestamp is not None:
        timestamp_ms = _milliseconds(properties.timestamp * 1000)
    token = Token(method.delivery_tag, before, lost, properties)
    lost += bool(count) or (flag_is_loss and count is None and method.redelivered)
    redelivered = bool(method.redelivered or before or lost)
    native = None
    if foreign:
        facts = {name: value for name in HIDDEN if (value := getattr(properties, name)) is not None}
        if route is not None and _key(route) != key:
            facts["routing_key"] = route
        facts |= _odd_headers(properties)
        native = Native(BACKEND, (properties.wire, route), facts)
        properties.routing_key = route
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
        _text(properties.content_encoding),
        native,
    )
    attempt = before + 1 + (lost if lost > 1 else 0)
    return Received(
        message, token, None, attempt, redelivered, locked_until, lost, return_at=return_at
    )


def retried(
    properties: Properties,
    *,
    key: Key | None,
    failed: int,
    lost: int = 0,
    expiration_ms: int | None = None,
) -> BasicProperties:
    """Properties for storing a delivery again: as it came, less what would act a second time."""
    fields = [one for one in properties.fields or () if one.name == TIMESTAMP or _may_go(one)]
    fields += _carried(properties, properties.routing_key)
    fields.append(field(ATTEMPT, long(failed)))
    if lost:
        fields.append(field(LOST, long(lost)))
    if key is not None:
        fields.append(field(KEY, key))
    copy = Properties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        delivery_mode=properties.delivery_mode,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=None if expiration_ms is None else str(expiration_ms),
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
        app_id=properties.app_id,
        cluster_id=properties.cluster_id,
    )
    copy.fields = fields
    return copy


def _as_it_came(
    message: Message, native: Native, key_in_header: bool, arrays: bool, user: str | None
) -> Properties:
    """Properties of a message that came from RabbitMQ: those it came with, where its fields still
    say the same."""
    came = _decoded_properties(native)
    fields, rest = _unchanged(came, message.headers, decimals=arrays)
    seconds = came.timestamp
    sent_ms = _milliseconds((came.headers or {}).get(TIMESTAMP))
    if sent_ms is not None and sent_ms == message.timestamp_ms:
        fields += [one for one in came.fields or () if one.name == TIMESTAMP]
    elif message.timestamp_ms is not None and message.timestamp_ms != (seconds or 0) * 1000:
        seconds = message.timestamp_ms // 1000
        fields.append(field(TIMESTAMP, long(message.timestamp_ms)))
    fields += [field(name, value) for name, value in _headers_of(rest, arrays).items()]
    if key_in_header and message.key is not None:
        fields.append(field(KEY, message.key))
    if native.resting:
        route = native.data[1]
        fields += _carried(came, None if route and _key(route) == message.key else route)
    allowed = user is not None and _text(came.user_id) == user
    copy = Properties(
        content_type=_kept(came.content_type, message.content_type),
        content_encoding=_kept(came.content_encoding, message.content_encoding),
        delivery_mode=came.delivery_mode,
        priority=came.priority,
        correlation_id=_kept(came.correlation_id, message.correlation_id),
        reply_to=_kept(came.reply_to, message.reply_to),
        expiration=None if native.resting else came.expiration,
        message_id=_kept(came.message_id, message.id),
        timestamp=seconds,
        type=_kept(came.type, message.type),
        user_id=came.user_id if allowed and not native.resting else None,
        app_id=came.app_id,
        cluster_id=came.cluster_id,
    )
    copy.fields = fields if fields or came.fields is not None else None
    return copy


def _decoded_properties(native: Native) -> Properties:
    try:
        came = Properties().decode(native.data[0])
    except Exception as error:  # it can have been anywhere, such as in a file of JSON lines
        raise InvalidMessage(
            f"the message's native part is not RabbitMQ's: {error!r}", hint="leave it out"
        ) from None
    headers = came.headers or {}
    came.expiration = headers.get(EXPIRATION, came.expiration)
    came.user_id = headers.get(USER_ID, came.user_id)
    return came


def _unchanged(
    came: Properties, headers: Headers, *, decimals: bool
) -> tuple[list[Field], Headers]:
    """The headers that still say what they said when they came, and the others.

    A decimal is one of the others without ``decimals``: a stream closes the connection over it.
    """
    wanted: dict[str, list[HeaderValue]] = {}
    for name, value in headers.pairs:
        wanted.setdefault(name, []).append(value)
    fields = []
    for one in came.fields or ():
        name = _name(one.name)
        if not _may_go(one):
            continue
        if _is_hidden(name):
            fields.append(one)  # a stranger's, though it begins like ours
        elif wanted.get(name) == _values(one.value) and (decimals or not _has_decimal(one.value)):
            fields.append(one)
            del wanted[name]
    return fields, Headers(tuple(pair for pair in headers.pairs if pair[0] in wanted))


def _carried(properties: BasicProperties, route: str | bytes | None) -> list[Field]:
    """Headers for what must not act on a copy that waits."""
    carried = {EXPIRATION: properties.expiration, USER_ID: properties.user_id, ROUTING_KEY: route}
    return [field(name, value) for name, value in carried.items() if value is not None]


def _may_go(one: Field) -> bool:
    """Whether a header may be sent again."""
    return one.name not in _NOT_FOR_SENDERS and one.name not in _OURS


def _kept(came: str | bytes | None, now: str | None) -> str | bytes | None:
    """A text property as it came, unless its field has been changed since."""
    return came if _text(came) == now else now


def _odd_headers(properties: Properties) -> dict[str, list[str]]:
    """Names of headers that a Message has no type for, and of those that it does not show."""
    odd: dict[str, list[str]] = {}
    for one in properties.fields or ():
        name = _name(one.name)
        if not _may_go(one):
            continue
        if _is_hidden(name):
            odd.setdefault(RESERVED, []).append(name)
        elif not isinstance(one.value, str | bytes | int):
            odd.setdefault(TYPED, []).append(name)
    return odd


def _is_ours(properties: Properties) -> bool:
    """Whether a Message has a field for all that ``properties`` hold."""
    p = properties
    if p.delivery_mode != 2 or not p.message_id or TIMESTAMP not in p.headers:
        return False
    if p.priority is not None or p.expiration is not None or p.app_id is not None:
        return False
    if p.user_id is not None or p.cluster_id is not None:
        return False
    return all(
        _is_plain(one) for one in p.fields or () if _may_go(one) and not _is_hidden(_name(one.name))
    )


def _is_plain(one: Field) -> bool:
    kind, value = one.wire[1 + one.wire[0]], one.value
    if kind == ord("S"):
        return type(value) is str
    if type(value) is list:
        return len(value) > 1 and all(type(item) in (str, bytes, bool, long) for item in value)
    return kind in _PLAIN_TYPES


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
        name = _name(raw_name)
        if _is_hidden(name):
            continue
        if type(value) is str:
            pairs.append((name, value))
        elif type(value) is list:
            pairs.extend((name, _value(item)) for item in value)
        else:
            pairs.append((name, _value(value)))
    return Headers(pairs) if pairs else NO_HEADERS


def _name(raw: Any) -> str:
    return raw if type(raw) is str else _decoded(raw)


def _is_hidden(name: str) -> bool:
    return name[:_PREFIX_LENGTH].lower() == RESERVED_PREFIX


def _values(value: Any) -> list[HeaderValue]:
    """What is shown of one header."""
    return [_value(item) for item in value] if type(value) is list else [_value(value)]


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


def _has_decimal(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_decimal, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Decimal)


def _count(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT:
        return int(value)
    return None


def _milliseconds(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_MS:
        return int(value)
    return None


def _key(value: Any) -> Key | None:
    if isinstance(value, bytes):
        return as_key(value)
    return value if isinstance(value, str) else str(value)


def _text(value: str | bytes | None) -> str | None:
    if not value:
        return None
    return value if type(value) is str else _decoded(value)


def _decoded(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
