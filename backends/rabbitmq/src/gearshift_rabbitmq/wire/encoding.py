"""Messages to AMQP properties: which field travels in which property or header.

=================  ==========================================================================
message            AMQP
=================  ==========================================================================
key                routing key; header ``gearshift-key`` where the routing key has another job, or
                   cannot hold it: bytes, an empty key, one of over 255 bytes
id                 ``message_id``
timestamp_ms       ``timestamp`` (whole seconds) and header ``timestamp_in_ms``, as the broker's
                   own timestamp interceptor names it
headers            headers, see ``headers``; RabbitMQ sorts them by name, values of one name keep
                   their order
native             everything else of a foreign message, see below
the other fields   the property of the same name
=================  ==========================================================================

A message that came from RabbitMQ and is sent to a RabbitMQ channel again has every header that was
not changed as the bytes that it came with, and every property too. Not kept are the broker's own
headers, ``CC`` and ``BCC``, which would fan out a second time, and a ``user_id`` that is not the
connection's, which the broker refuses. An ``expiration`` must not end a copy that waits for a retry
or lies among dead letters, nor does such a copy come under its first routing key: both travel in
headers of ours (``gearshift-expiration``, ``gearshift-routing-key``), and redrive makes properties
of them again.
"""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import msgspec
from pika.compat import long
from pika.spec import BasicProperties

from gearshift.errors import InvalidMessage, MessageTooLarge, NotSupported
from gearshift.message import Headers, HeaderValue, Key, Message, Native
from gearshift_rabbitmq.wire.headers import (
    BACKEND,
    NOT_FOR_SENDERS,
    TIMESTAMP,
    Ours,
    as_name,
    as_routing_key,
    as_text,
    as_values,
    is_hidden,
    is_ours,
    may_go,
)
from gearshift_rabbitmq.wire.properties import NAMES, Field, Properties, field
from gearshift_rabbitmq.wire.publishing import encoded_properties, header

__all__ = ["encoded", "first_routing_key", "properties_of", "properties_of_copy"]

#: Properties and headers go in one frame, of at most 128 KiB unless the broker's settings differ,
#: beside 20 bytes of its own. Of what is new some is left for the headers of its copies.
_MOST_PROPERTY_BYTES = 131_072 - 20
_MOST_HEADER_BYTES = 120_000

#: Every property but the headers.
_PROPERTIES = tuple(name for name in NAMES if name != "headers")


def properties_of(
    message: Message, *, key_in_header: bool, arrays: bool = True, user: str | None = None
) -> bytes:
    """Encoded properties for ``message``. Raises InvalidMessage for what the broker would choke on.

    ``user`` is the connection's: the only ``user_id`` that the broker takes.
    """
    if message.body is None:
        raise NotSupported(
            "RabbitMQ has no message without a body", hint='send b"" instead of None'
        )
    if message.reply_to == "amq.rabbitmq.reply-to":
        raise InvalidMessage(
            "reply_to names RabbitMQ's direct reply-to, which needs a raw AMQP client"
        )
    native = message.native
    if native is not None and native.backend == BACKEND:
        return encoded(_as_it_came(message, native, key_in_header, arrays, user))
    _require_fit(message.size - len(message.body), _MOST_HEADER_BYTES)
    headers = []
    if message.headers.pairs:
        headers = [header(*named) for named in _table(message.headers, arrays).items()]
    seconds = None
    if message.timestamp_ms is not None:
        seconds = message.timestamp_ms // 1000
        headers.append(header(TIMESTAMP, long(message.timestamp_ms)))
    if key_in_header and message.key is not None:
        headers.append(header(Ours.KEY, message.key))
    return encoded_properties(
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id=message.id,
        timestamp=seconds,
        type=message.type,
    )


def encoded(properties: BasicProperties) -> bytes:
    """Properties that pika has, encoded. Raises MessageTooLarge, as RabbitMQ would disconnect."""
    found = b"".join(properties.encode())
    _require_fit(len(found), _MOST_PROPERTY_BYTES)
    return found


def _require_fit(size: int, most: int) -> None:
    if size > most:
        raise MessageTooLarge(
            f"key and headers have {size} bytes, RabbitMQ takes {most}",
            hint="move some of it into the body",
        )


def first_routing_key(message: Message) -> str | bytes | None:
    """The routing key under which ``message`` was first published; None if that is not known."""
    native = message.native
    if native is None or native.backend != BACKEND:
        return None
    key: str | bytes | None = native.data[1]
    return key


def properties_of_copy(
    properties: Properties,
    *,
    key: Key | None,
    failed: int,
    lost: int = 0,
    expiration_ms: int | None = None,
) -> BasicProperties:
    """Properties for storing a delivery again: as it came, less what would act a second time."""
    fields = [one for one in properties.fields or () if one.name == TIMESTAMP or may_go(one)]
    fields += _carried(properties, None if is_ours(properties) else properties.routing_key)
    fields.append(field(Ours.ATTEMPT, long(failed)))
    if lost:
        fields.append(field(Ours.LOST, long(lost)))
    if key is not None:
        fields.append(field(Ours.KEY, key))
    expiration = None if expiration_ms is None else str(expiration_ms)
    return _copy(properties, fields, expiration=expiration, user_id=None)


def _as_it_came(
    message: Message, native: Native, key_in_header: bool, arrays: bool, user: str | None
) -> Properties:
    """Properties of a message that came from RabbitMQ: those it came with, where its fields still
    say the same."""
    came = _decoded_properties(native)
    fields, rest = _unchanged(came, message.headers, decimals=arrays)
    seconds = came.timestamp
    sent_ms = (came.headers or {}).get(TIMESTAMP)
    if sent_ms is not None and sent_ms == message.timestamp_ms:
        fields += [one for one in came.fields or () if one.name == TIMESTAMP]
    elif message.timestamp_ms is not None and message.timestamp_ms != (seconds or 0) * 1000:
        seconds = message.timestamp_ms // 1000
        fields.append(field(TIMESTAMP, long(message.timestamp_ms)))
    fields += [field(name, value) for name, value in _table(rest, arrays).items()]
    if key_in_header and message.key is not None:
        fields.append(field(Ours.KEY, message.key))
    if native.resting:
        route = native.data[1]
        fields += _carried(came, None if route and as_routing_key(route) == message.key else route)
    allowed = user is not None and as_text(came.user_id) == user
    return _copy(
        came,
        fields if fields or came.fields is not None else None,
        content_type=_kept(came.content_type, message.content_type),
        content_encoding=_kept(came.content_encoding, message.content_encoding),
        correlation_id=_kept(came.correlation_id, message.correlation_id),
        reply_to=_kept(came.reply_to, message.reply_to),
        message_id=_kept(came.message_id, message.id),
        timestamp=seconds,
        type=_kept(came.type, message.type),
        expiration=None if native.resting else came.expiration,
        user_id=came.user_id if allowed and not native.resting else None,
    )


def _copy(came: Properties, fields: list[Field] | None, **changed: Any) -> Properties:
    copy = Properties(**{name: getattr(came, name) for name in _PROPERTIES} | changed)
    copy.fields = fields
    return copy


def _decoded_properties(native: Native) -> Properties:
    try:
        came = Properties().decode(native.data[0])
    except Exception as error:  # it can have been anywhere, such as in a file of JSON lines
        raise InvalidMessage(
            f"the message's native part is not RabbitMQ's: {error!r}", hint="leave it out"
        ) from None
    headers = came.headers or {}
    came.expiration = headers.get(Ours.EXPIRATION, came.expiration)
    came.user_id = headers.get(Ours.USER_ID, came.user_id)
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
        name = as_name(one.name)
        if not may_go(one):
            continue
        if is_hidden(name):
            fields.append(one)  # of another program, though it begins like ours
        elif wanted.get(name) == as_values(one.value) and (decimals or not _has_decimal(one.value)):
            fields.append(one)
            del wanted[name]
    return fields, Headers(tuple(pair for pair in headers.pairs if pair[0] in wanted))


def _carried(properties: BasicProperties, route: str | bytes | None) -> list[Field]:
    """Headers for what must not act on a copy that waits."""
    carried = {
        Ours.EXPIRATION: properties.expiration,
        Ours.USER_ID: properties.user_id,
        Ours.ROUTING_KEY: route,
    }
    return [field(name, value) for name, value in carried.items() if value is not None]


def _kept(came: str | bytes | None, now: str | None) -> str | bytes | None:
    """A text property as it came, unless its field has been changed since."""
    return came if as_text(came) == now else now


def _table(headers: Headers, arrays: bool) -> dict[str, Any]:
    table: dict[str, Any] = {}
    repeated: dict[str, list[Any]] = {}
    for name, value in headers.pairs:
        if name in NOT_FOR_SENDERS:
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
        table[Ours.REPEATED] = msgspec.json.encode(
            {name: [_tagged(value) for value in values] for name, values in repeated.items()}
        ).decode()
    return table


def _tagged(value: Any) -> Any:
    """``value`` as JSON in which bytes differ from text."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _has_decimal(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_decimal, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Decimal)
