"""AMQP deliveries to Messages.

Nothing that a foreign client can send makes receiving fail. What a Message cannot hold is shown as
text, what the broker added for its own purposes is not shown, and the encoded properties are kept
in ``native`` (see ``encoding``).
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec
from pika.compat import long
from pika.spec import Basic

from gearshift.driver import Received
from gearshift.message import NO_HEADERS, Headers, HeaderValue, Message, Native
from gearshift_rabbitmq.wire.headers import (
    BACKEND,
    BROKER_HEADERS,
    DELIVERY_COUNT,
    TIMESTAMP,
    Ours,
    as_name,
    as_number,
    as_routing_key,
    as_text,
    as_value,
    is_hidden,
    may_go,
)
from gearshift_rabbitmq.wire.properties import HIDDEN, Field, Properties

__all__ = ["ONLY_HERE", "Token", "received"]

#: Names in Native.properties of what is no property: see ``plugin``.
TYPED = "typed_headers"
RESERVED = "reserved_headers"

#: What only RabbitMQ carries of them, and what becomes of it elsewhere.
ONLY_HERE = {
    **dict.fromkeys((*HIDDEN, "routing_key", RESERVED), "left out"),
    TYPED: "as text (None, floats, times, tables), or one for each item of an array",
}

#: Headers of these types come back from a Message as they were: see ``encoding``.
_PLAIN_TYPES = frozenset(b"Sxlt")
_TEXT = ord("S")
_MAX_COUNT = 1_000_000
_MAX_MS = 2**63 - 1


class Token(NamedTuple):
    """What settles a delivery: its tag, and how it came. ``before`` and ``lost`` are what its
    headers say: attempts that failed, and losses since (see gearshift._core.consuming.suspects)."""

    tag: int
    before: int
    lost: int
    properties: Properties


def received(
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
        before = as_number(headers.get(Ours.ATTEMPT), _MAX_COUNT) or 0
        lost = as_number(headers.get(Ours.LOST), _MAX_COUNT) or 0
        count = as_number(headers.get(DELIVERY_COUNT), _MAX_COUNT)
        timestamp_ms = as_number(headers.get(TIMESTAMP), _MAX_MS)
        if Ours.KEY in headers:
            key = as_routing_key(headers[Ours.KEY])
        if Ours.EXPIRATION in headers:
            properties.expiration = as_text(headers[Ours.EXPIRATION])
        if Ours.USER_ID in headers:
            properties.user_id = as_text(headers[Ours.USER_ID])
        if Ours.ROUTING_KEY in headers:
            route = headers[Ours.ROUTING_KEY]
        pairs = _headers(headers)
        foreign = not _is_ours(properties)
    if key is None and key_from_routing and route:
        key = as_routing_key(route)
    if timestamp_ms is None and properties.timestamp is not None:
        timestamp_ms = as_number(properties.timestamp * 1000, _MAX_MS)
    token = Token(method.delivery_tag, before, lost, properties)
    lost += bool(count) or (flag_is_loss and count is None and method.redelivered)
    redelivered = bool(method.redelivered or before or lost)
    native = None
    if foreign:
        facts = {name: value for name in HIDDEN if (value := getattr(properties, name)) is not None}
        if route is not None and as_routing_key(route) != key:
            facts["routing_key"] = route
        facts |= _odd_headers(properties)
        native = Native(BACKEND, (properties.wire, route), facts)
        properties.routing_key = route
    message = Message(
        body,
        key,
        pairs,
        as_text(properties.message_id),
        as_text(properties.content_type),
        timestamp_ms,
        as_text(properties.correlation_id),
        as_text(properties.reply_to),
        as_text(properties.type),
        as_text(properties.content_encoding),
        native,
    )
    attempt = before + 1 + (lost if lost > 1 else 0)
    return Received(
        message, token, None, attempt, redelivered, locked_until, lost, return_at=return_at
    )


def _odd_headers(properties: Properties) -> dict[str, list[str]]:
    """Names of headers that a Message has no type for, and of those that it does not show."""
    odd: dict[str, list[str]] = {}
    for one in properties.fields or ():
        name = as_name(one.name)
        if not may_go(one):
            continue
        if is_hidden(name):
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
    for one in p.fields or ():
        if not _is_plain(one) and may_go(one) and not is_hidden(as_name(one.name)):
            return False
    return True


def _is_plain(one: Field) -> bool:
    kind, value = one.wire[1 + one.wire[0]], one.value
    if kind == _TEXT:
        return type(value) is str
    if type(value) is list:
        return len(value) > 1 and all(type(item) in (str, bytes, bool, long) for item in value)
    return kind in _PLAIN_TYPES


def _headers(table: dict[Any, Any]) -> Headers:
    pairs: list[tuple[str, HeaderValue]] = []
    if Ours.REPEATED in table:
        table = table | _repeated(table)
    for raw_name, value in table.items():
        if raw_name in BROKER_HEADERS:
            continue
        name = as_name(raw_name)
        if is_hidden(name):
            continue
        if type(value) is str:
            pairs.append((name, value))
        elif type(value) is list:
            pairs.extend((name, as_value(item)) for item in value)
        else:
            pairs.append((name, as_value(value)))
    return Headers(pairs) if pairs else NO_HEADERS


def _repeated(table: dict[Any, Any]) -> dict[str, list[Any]]:
    """Values of repeated names that a stream carries as JSON; nothing if a foreigner wrote it."""
    try:
        found = msgspec.json.decode(table[Ours.REPEATED], type=dict[str, list[Any]])
        return {name: [_untagged(value) for value in values] for name, values in found.items()}
    except (ValueError, TypeError, KeyError):
        return {}


def _untagged(value: Any) -> Any:
    return base64.b64decode(value["bytes"]) if isinstance(value, dict) else value
