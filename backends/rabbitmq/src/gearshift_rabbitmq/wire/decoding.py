"""AMQP deliveries to Messages.

Nothing that a foreign client can send makes receiving fail. What a Message cannot hold is shown as
text, what the broker added for its own purposes is not shown, and the encoded properties are kept
in ``native`` (see ``encoding``).
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec
from pika.spec import Basic

from gearshift.driver import Received
from gearshift.driver.helpers import UnreadMessage
from gearshift.message import (
    NO_HEADERS,
    RESERVED_PREFIX,
    Headers,
    HeaderValue,
    Key,
    Message,
    Native,
)
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
    is_ours,
    may_go,
)
from gearshift_rabbitmq.wire.properties import HIDDEN, Properties

__all__ = ["ONLY_HERE", "Token", "received"]

#: Names in Native.properties of what is no property: see ``plugin``.
TYPED = "typed_headers"
RESERVED = "reserved_headers"

#: What only RabbitMQ carries of them, and what becomes of it elsewhere.
ONLY_HERE = {
    **dict.fromkeys((*HIDDEN, "routing_key", RESERVED), "left out"),
    TYPED: "as text (None, floats, times, tables), or one for each item of an array",
}

#: Without these a message's headers say nothing of how to settle it.
_OURS = RESERVED_PREFIX.encode()
_COUNT = DELIVERY_COUNT.encode()
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
    # On the default exchange the routing key is only a queue's name.
    properties.routing_key = method.routing_key if routed and method.exchange else None
    before, lost, count = 0, 0, None
    if _OURS in properties.wire or _COUNT in properties.wire:
        headers = properties.headers or {}
        before = as_number(headers.get(Ours.ATTEMPT), _MAX_COUNT) or 0
        lost = as_number(headers.get(Ours.LOST), _MAX_COUNT) or 0
        count = as_number(headers.get(DELIVERY_COUNT), _MAX_COUNT)
        if Ours.EXPIRATION in headers:
            properties.expiration = as_text(headers[Ours.EXPIRATION])
        if Ours.USER_ID in headers:
            properties.user_id = as_text(headers[Ours.USER_ID])
        if Ours.ROUTING_KEY in headers:
            properties.routing_key = headers[Ours.ROUTING_KEY]
    token = Token(method.delivery_tag, before, lost, properties)
    lost += bool(count) or (flag_is_loss and count is None and method.redelivered)
    redelivered = bool(method.redelivered or before or lost)
    message = UnreadDelivery(body, source=properties, key_from_routing=key_from_routing)
    attempt = before + 1 + (lost if lost > 1 else 0)
    return Received(
        message, token, None, attempt, redelivered, locked_until, lost, return_at=return_at
    )


class UnreadDelivery(UnreadMessage, frozen=True, gc=False):
    """The message of a delivery whose properties are its ``source``."""

    key_from_routing: bool = True

    def read(self) -> Message:
        p: Properties = self.source
        headers, route = p.headers or {}, p.routing_key
        key = as_routing_key(headers[Ours.KEY]) if Ours.KEY in headers else None
        if key is None and self.key_from_routing and route:
            key = as_routing_key(route)
        timestamp_ms = as_number(headers.get(TIMESTAMP), _MAX_MS)
        if timestamp_ms is None and p.timestamp is not None:
            timestamp_ms = as_number(p.timestamp * 1000, _MAX_MS)
        return Message(
            self.body,
            key,
            _headers(headers),
            as_text(p.message_id),
            as_text(p.content_type),
            timestamp_ms,
            as_text(p.correlation_id),
            as_text(p.reply_to),
            as_text(p.type),
            as_text(p.content_encoding),
            None if is_ours(p) else _native(p, key),
        )

    def has_header(self, name: str) -> bool:
        # A backslash may stand for what is not in the bytes: see ``as_name``, and JSON.
        is_there = name.encode() in self.source.wire or "\\" in name
        return is_there and super().has_header(name)


def _native(properties: Properties, key: Key | None) -> Native:
    """What a foreign message has that no field of a Message holds."""
    facts = {name: value for name in HIDDEN if (value := getattr(properties, name)) is not None}
    route = properties.routing_key
    if route is not None and as_routing_key(route) != key:
        facts["routing_key"] = route
    return Native(BACKEND, (properties.wire, route), facts | _odd_headers(properties))


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
