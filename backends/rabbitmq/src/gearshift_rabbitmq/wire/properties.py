"""A message's AMQP properties that are kept as they came, byte for byte.

pika decodes a header table into Python values and encodes those again, and some do not come back
the same: it reads a float as a whole number, cannot write one at all, and forgets how wide an
integer was. Here every header keeps its own bytes, which are written again as they are; its value
is decoded beside them, for reading.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from pika.compat import long
from pika.data import encode_short_string, encode_value
from pika.spec import BasicProperties

__all__ = ["HIDDEN", "NAMES", "Field", "Properties", "as_read", "field", "without_headers"]

logger = logging.getLogger("gearshift.rabbitmq.connection")

#: Properties that no field of a Message holds.
HIDDEN = ("delivery_mode", "priority", "expiration", "user_id", "app_id", "cluster_id")

_FLAGS = struct.Struct(">H")
_LENGTH = struct.Struct(">I")

#: All properties, in the order of their flags from the highest bit on, and of their encoding.
NAMES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip
_FORMS = {
    "delivery_mode": struct.Struct("B"),
    "priority": struct.Struct("B"),
    "timestamp": struct.Struct(">Q"),
}

#: How a kind of value is packed, of those of fixed length.
_FIXED = {
    kind: struct.Struct(f">{form}")
    for kind, form in (
        (b"t", "?"), (b"b", "b"), (b"B", "B"), (b"U", "h"), (b"u", "H"), (b"s", "h"), (b"I", "i"),
        (b"i", "I"), (b"L", "q"), (b"l", "q"), (b"f", "f"), (b"d", "d"), (b"T", "Q"), (b"D", "Bi"),
    )
}  # fmt: skip
_TEXT = ord("S")
_LONG = frozenset((b"S", b"x", b"A", b"F"))


class Field(NamedTuple):
    """One header: its name, its value decoded, and both as they are on the wire."""

    name: str | bytes
    value: Any
    wire: bytes


class Properties(BasicProperties):  # type: ignore[misc]
    """Properties with their headers as ``fields`` in the order they came; None without headers.

    ``headers`` has the same decoded. ``wire`` is the whole as it came, ``routing_key`` the one
    under which its first sender published it, where that is known.
    """

    fields: list[Field] | None
    wire: bytes = b""
    routing_key: str | bytes | None = None

    def __init__(self, **properties: Any) -> None:
        super().__init__(**properties)
        self.fields = None

    @classmethod
    def unread(cls, encoded: bytes) -> Properties:
        """Properties that are decoded when one of them is asked for. Any thread may; never raises
        on what a foreign client sent."""
        properties = cls.__new__(cls)
        properties.wire = encoded
        return properties

    def __getattr__(self, name: str) -> Any:
        if name not in _READ:
            raise AttributeError(name)
        try:
            read = Properties().decode(self.wire)
        except (ValueError, struct.error, IndexError) as error:
            logger.warning("a message came without its headers, they cannot be decoded: %r", error)
            read = Properties().decode(without_headers(self.wire))
        self.__dict__.update(vars(read) | vars(self))  # at once, as two threads may be here
        return vars(self)[name]

    def decode(self, encoded: bytes, offset: int = 0) -> Properties:
        """Read ``encoded``, once for all, which takes two thirds of what pika's way takes.

        Raises ValueError, IndexError or struct.error on what is broken, such as a header of an
        unknown type.
        """
        wire = self.wire = encoded[offset:]
        at = _FLAGS.size
        for name, form in _present(_FLAGS.unpack_from(wire)[0]):
            if form is not None:
                (value,) = form.unpack_from(wire, at)
                at += form.size
                setattr(self, name, value)
            elif name == "headers":
                self.fields, at = _fields_of(wire, at)
                self.headers = {field.name: field.value for field in self.fields}
            else:
                end = at + 1 + wire[at]
                setattr(self, name, as_read(wire[at + 1 : end]))
                at = end
        return self

    def encode(self) -> list[bytes]:
        """As pika does, with the headers as they came."""
        if self.fields is None:
            pieces: list[bytes] = super().encode()
            return pieces
        headers, self.headers = self.headers, None  # type: ignore[assignment]
        pieces = super().encode()
        self.headers = headers
        pieces[0] = _FLAGS.pack(_FLAGS.unpack(pieces[0])[0] | BasicProperties.FLAG_HEADERS)
        # Each property before the headers is two pieces, its length and its text.
        place = 1 + 2 * sum(p is not None for p in (self.content_type, self.content_encoding))
        table = b"".join(field.wire for field in self.fields)
        pieces[place:place] = [_LENGTH.pack(len(table)), table]
        return pieces


#: What is there once it is decoded.
_READ = frozenset(vars(Properties()))


@lru_cache(maxsize=64)
def _present(flags: int) -> Sequence[tuple[str, struct.Struct | None]]:
    """The properties that are there, in their order, with their form if it is of fixed length."""
    return [
        (name, _FORMS.get(name))
        for number, name in enumerate(NAMES)
        if flags & (BasicProperties.FLAG_CONTENT_TYPE >> number)
    ]


def _fields_of(encoded: bytes, start: int) -> tuple[list[Field], int]:
    """The headers in the table at ``start``, and where it ends."""
    end = start + _LENGTH.size + _LENGTH.unpack_from(encoded, start)[0]
    start += _LENGTH.size
    found = []
    while start < end:
        after_name = start + 1 + encoded[start]
        name = as_read(encoded[start + 1 : after_name])
        if encoded[after_name] == _TEXT:  # most are
            first = after_name + 1 + _LENGTH.size
            after = first + _LENGTH.unpack_from(encoded, after_name + 1)[0]
            value: Any = as_read(encoded[first:after])
        else:
            value, after = _value(encoded, after_name)
        found.append(Field(name, value, encoded[start:after]))
        start = after
    return found, end


def field(name: str | bytes, value: Any) -> Field:
    """A header of ours. Raises what pika raises on what AMQP has no type for."""
    pieces: list[bytes] = []
    encode_short_string(pieces, name)
    encode_value(pieces, value)
    return Field(name, value, b"".join(pieces))


def without_headers(encoded: bytes) -> bytes:
    """Encoded properties less their headers."""
    start = _start_of_headers(encoded)
    if start is None:
        return encoded
    end = start + _LENGTH.size + _LENGTH.unpack_from(encoded, start)[0]
    flags = _FLAGS.unpack_from(encoded)[0] & ~BasicProperties.FLAG_HEADERS
    return _FLAGS.pack(flags) + encoded[_FLAGS.size : start] + encoded[end:]


def _start_of_headers(encoded: bytes) -> int | None:
    flags = _FLAGS.unpack_from(encoded)[0]
    if not flags & BasicProperties.FLAG_HEADERS:
        return None
    start = _FLAGS.size
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    return start


def _value(data: bytes, start: int) -> tuple[Any, int]:
    """The value at ``start``, and where it ends."""
    kind = data[start : start + 1]
    start += 1
    if kind in _LONG:
        end = start + 4 + _LENGTH.unpack_from(data, start)[0]
        return _long(kind, data[start + 4 : end]), end
    if kind == b"V":
        return None, start
    form = _FIXED.get(kind)
    if form is None:
        raise ValueError(f"a header has the unknown type {kind!r}")
    return _fixed(kind, form.unpack_from(data, start)), start + form.size


def _long(kind: bytes, data: bytes) -> Any:
    if kind == b"S":
        return as_read(data)
    if kind == b"x":
        return data
    start = 0
    if kind == b"A":
        items = []
        while start < len(data):
            item, start = _value(data, start)
            items.append(item)
        return items
    table = {}
    while start < len(data):
        end = start + 1 + data[start]
        name = as_read(data[start + 1 : end])
        table[name], start = _value(data, end)
    return table


def _fixed(kind: bytes, values: tuple[Any, ...]) -> Any:
    value = values[0]
    if kind in (b"l", b"L"):
        return long(value)  # pika's mark for an integer of 64 bits
    if kind == b"D":
        return Decimal(values[1]).scaleb(-value)
    if kind == b"T":
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            return value  # beyond the year 9999
    return value


def as_read(data: bytes) -> str | bytes:
    """Text from the wire, bytes where it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
