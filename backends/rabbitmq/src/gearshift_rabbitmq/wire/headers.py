"""AMQP headers: those of a Message, the broker's own and ours; their names and values.

A Message's header is a long string, a byte array, an integer of 64 bits or a boolean. A repeated
name is an array, but JSON in ``gearshift-repeated`` in a stream, which keeps no arrays.
"""

from __future__ import annotations

from typing import Any

from pika.compat import long

from gearshift.message import RESERVED_PREFIX, HeaderValue, Key, as_key
from gearshift_rabbitmq.wire.properties import Field, Properties

__all__ = [
    "BACKEND",
    "BROKER_HEADERS",
    "DELIVERY_COUNT",
    "NOT_FOR_SENDERS",
    "TIMESTAMP",
    "Ours",
    "as_name",
    "as_number",
    "as_routing_key",
    "as_text",
    "as_value",
    "as_values",
    "is_hidden",
    "is_ours",
    "may_go",
]

BACKEND = "rabbitmq"


class Ours:
    """Names of our headers."""

    KEY = "gearshift-key"
    ATTEMPT = "gearshift-attempt"
    LOST = "gearshift-lost"
    REPEATED = "gearshift-repeated"
    EXPIRATION = "gearshift-expiration"
    USER_ID = "gearshift-user-id"
    ROUTING_KEY = "gearshift-routing-key"


TIMESTAMP = "timestamp_in_ms"
DELIVERY_COUNT = "x-delivery-count"

#: What brokers put on a message for themselves: never shown, and stripped when stored again.
BROKER_HEADERS = frozenset(
    {DELIVERY_COUNT, "x-acquired-count", "x-death", "x-stream-offset", TIMESTAMP}
    | {
        f"x-{end}-death-{what}"
        for end in ("first", "last")
        for what in ("exchange", "queue", "reason")
    }
)
#: Not data but routing instructions to the broker, which closes the AMQP channel over wrong ones.
_ROUTING_HEADERS = frozenset({"CC", "BCC"})
NOT_FOR_SENDERS = BROKER_HEADERS | _ROUTING_HEADERS
_OURS = frozenset(value for name, value in vars(Ours).items() if name.isupper())
#: Headers of these types come back from a Message as they were: see ``encoding``.
_PLAIN_TYPES = frozenset(b"Sxlt")
_TEXT = ord("S")
_PREFIX_LENGTH = len(RESERVED_PREFIX)


def may_go(one: Field) -> bool:
    """Whether a header may be sent again."""
    return one.name not in NOT_FOR_SENDERS and one.name not in _OURS


def is_ours(properties: Properties) -> bool:
    """Whether a Message has a field for all that ``properties`` hold."""
    p = properties
    if p.delivery_mode != 2 or not p.message_id or TIMESTAMP not in (p.headers or ()):
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


def as_values(value: Any) -> list[HeaderValue]:
    """What is shown of one header."""
    return [as_value(item) for item in value] if type(value) is list else [as_value(value)]


def as_name(raw: Any) -> str:
    """The name of a header as text."""
    if type(raw) is str:
        return raw
    return raw.decode(errors="backslashreplace") if isinstance(raw, bytes) else str(raw)


def is_hidden(name: str) -> bool:
    """Whether a header is reserved for Gearshift, so that no Message shows it."""
    return name[:_PREFIX_LENGTH].lower() == RESERVED_PREFIX


def as_text(value: str | bytes | None) -> str | None:
    """A text property; None if it is empty."""
    return as_name(value) if value else None


def as_routing_key(value: Any) -> Key | None:
    """A key that a routing key or a header holds."""
    if isinstance(value, bytes):
        return as_key(value)
    return value if isinstance(value, str) else str(value)


def as_number(value: Any, most: int) -> int | None:
    """A number from 0 to ``most``; None if it is anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return int(value)
    return None


def as_value(value: Any) -> HeaderValue:
    """A value of a header as a Message has it: what it has no type for is text."""
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
