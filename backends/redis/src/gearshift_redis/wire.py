"""Message <-> the fields of an entry. Nothing that a foreign program can store makes reading fail.

Fields have the names of a message's; ``gearshift-headers`` is MessagePack, as headers have types
and an order, and ``gearshift-attempts`` counts the attempts before. Other fields become headers.
An entry that Gearshift did not write keeps all its fields in the message's ``native`` part: sent
to a Redis channel again, those that still say the same leave as they came, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gearshift.driver.helpers import UnreadMessage
from gearshift.errors import InvalidMessage, NotSupported
from gearshift.message import (
    NO_HEADERS,
    Headers,
    HeaderValue,
    Key,
    Message,
    Native,
    as_key,
    key_bytes,
)

__all__ = ["BACKEND", "Fields", "attempts_of", "fields_of", "message_of"]

BACKEND = "redis"

Fields = list[str | bytes]

_TEXTS = ("id", "content_type", "correlation_id", "reply_to", "type", "content_encoding")
_KEY = "key"
_TIMESTAMP = "timestamp_ms"
_HEADERS = "gearshift-headers"
_ATTEMPTS = "gearshift-attempts"
_PACKED = _HEADERS.encode()
_OURS = frozenset((_PACKED, _ATTEMPTS.encode()))
_KNOWN = frozenset(name.encode() for name in (*_TEXTS, _KEY, _TIMESTAMP, _HEADERS, _ATTEMPTS))
_PAIRS = msgspec.msgpack.Decoder(list[tuple[str, Any]])


def fields_of(message: Message, body_field: str, *, attempts: int = 0) -> Fields:
    """Names and values in turn, as XADD takes them. Raises NotSupported without a body."""
    if message.body is None:
        raise NotSupported("Redis has no message without a body", hint='send b"" instead of None')
    native = message.native
    if native is not None and native.backend == BACKEND:
        return _as_they_came(message, message.body, native, body_field.encode(), attempts)
    fields: Fields = [body_field, message.body]
    if message.key is not None:
        fields += [_KEY, key_bytes(message.key)]
    for name in _TEXTS:
        value = getattr(message, name)
        if value is not None:
            fields += [name, value]
    if message.timestamp_ms is not None:
        fields += [_TIMESTAMP, str(message.timestamp_ms)]
    if message.headers.pairs:
        fields += [_HEADERS, msgspec.msgpack.encode(message.headers.pairs)]
    if attempts:
        fields += [_ATTEMPTS, str(attempts)]
    return fields


def message_of(entry: Mapping[bytes, bytes], body_field: bytes) -> Message:
    """The message of an entry."""
    return UnreadEntry(entry.get(body_field, b""), source=entry, body_field=body_field)


class UnreadEntry(UnreadMessage, frozen=True, gc=False):
    """The message of the entry ``source``, read when it is asked for."""

    body_field: bytes = b""

    def read(self) -> Message:
        entry: Mapping[bytes, bytes] = self.source
        native = None if _is_ours(entry, self.body_field) else Native(BACKEND, list(entry.items()))
        return Message(
            self.body,
            as_key(entry.get(_KEY.encode())),
            _headers(entry, self.body_field),
            timestamp_ms=_number(entry.get(_TIMESTAMP.encode())),
            native=native,
            **{name: _text(entry.get(name.encode())) for name in _TEXTS},  # type: ignore[arg-type]
        )

    def has_header(self, name: str) -> bool:
        wanted, packed = name.encode(), self.source.get(_PACKED, b"")
        # What is no UTF-8 is shown with a sign that is not in the bytes: see ``_shown``.
        is_there = wanted in packed or wanted in self.source or "\ufffd" in name
        return is_there and super().has_header(name)


def attempts_of(entry: Mapping[bytes, bytes]) -> int:
    """Attempts that the message of an entry has had before it was stored again."""
    return _number(entry.get(_ATTEMPTS.encode())) or 0


def _as_they_came(
    message: Message, body: bytes, native: Native, body_field: bytes, attempts: int
) -> Fields:
    """The fields that a foreign entry came with, where they still say the same, then others."""
    wanted = list(message.headers.pairs)
    fields: dict[bytes, str | bytes] = {}
    try:
        came = {bytes(name): bytes(value) for name, value in native.data}
        for name, value in came.items():
            if name == body_field:
                fields[name] = body
            elif name not in _KNOWN:
                pair = (_shown(name), _loose(value))
                if pair in wanted:
                    wanted.remove(pair)
                    fields[name] = value
            elif name not in _OURS and _field(came, name) == _value(message, name):
                fields[name] = value
    except (TypeError, ValueError) as error:
        raise InvalidMessage(
            f"the message's native part is not Redis's: {error!r}", hint="leave it out"
        ) from None
    for name in _KNOWN - _OURS - fields.keys():
        now = _value(message, name)
        if now is not None and now != _field(came, name):
            fields[name] = key_bytes(now) if isinstance(now, str | bytes) else str(now)
    if body or not fields:
        fields.setdefault(body_field, body)
    if wanted:
        fields[_PACKED] = msgspec.msgpack.encode(wanted)
    if attempts:
        fields[_ATTEMPTS.encode()] = str(attempts)
    return [part for pair in fields.items() for part in pair]


def _value(message: Message, name: bytes) -> Key | int | None:
    """The message's present value of the field ``name``."""
    value: Key | int | None = getattr(message, name.decode())
    return value


def _field(entry: Mapping[bytes, bytes], name: bytes) -> Key | int | None:
    """The value of the field ``name`` of a message that came with ``entry``."""
    if name == _KEY.encode():
        return as_key(entry.get(name))
    return _number(entry.get(name)) if name == _TIMESTAMP.encode() else _text(entry.get(name))


def _is_ours(entry: Mapping[bytes, bytes], body_field: bytes) -> bool:
    """True if a Message has a field for all that an entry holds."""
    return b"id" in entry and entry.keys() <= _KNOWN | {body_field}


def _headers(entry: Mapping[bytes, bytes], body_field: bytes) -> Headers:
    pairs: list[tuple[str, HeaderValue]] = []
    packed = entry.get(_PACKED)
    if packed is not None:
        try:
            pairs += [
                (name, value if isinstance(value, str | bytes | int) else str(value))
                for name, value in _PAIRS.decode(packed)
            ]
        except msgspec.MsgspecError:
            pairs.append((_HEADERS, packed))
    for name, value in entry.items():
        if name not in _KNOWN and name != body_field:
            pairs.append((_shown(name), _loose(value)))
    return Headers(tuple(pairs)) if pairs else NO_HEADERS


def _shown(name: bytes) -> str:
    return name.decode(errors="replace")


def _loose(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _number(value: bytes | None) -> int | None:
    if value is None or not value.isdigit() or len(value) > 18:
        return None
    return int(value)
