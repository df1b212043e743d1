"""Messages, headers, positions and receipts: what every message costs at least, so they are
made of msgspec's structs."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, TypedDict, Unpack

import msgspec

from gearshift.errors import GearshiftError

__all__ = [
    "DEFAULT_GROUP",
    "NO_HEADERS",
    "RESERVED_PREFIX",
    "Changes",
    "Fields",
    "HeaderValue",
    "Headers",
    "HeadersLike",
    "Key",
    "Message",
    "Native",
    "Position",
    "Receipt",
    "Semantics",
    "SendResult",
    "as_key",
    "key_bytes",
    "message_id",
]

HeaderValue: TypeAlias = str | bytes | int | bool

#: A key is bytes at heart: a str stands for its UTF-8, and bytes for what is not UTF-8.
Key: TypeAlias = str | bytes

HeadersLike: TypeAlias = Mapping[str, HeaderValue] | Iterable[tuple[str, HeaderValue]]

#: The group of a consumer that names none.
DEFAULT_GROUP = "default"

#: Headers with this prefix are Gearshift's: refused from callers, hidden on delivery.
RESERVED_PREFIX = "gearshift-"


class Semantics(StrEnum):
    """A ``queue`` of work that is settled one by one, or a ``stream`` that is read along."""

    QUEUE = "queue"
    STREAM = "stream"


class Headers(Mapping[str, HeaderValue]):
    """Immutable headers that keep duplicates, and the order of the values of one name.

    ``headers["a"]`` is the last value of ``a``; ``getall("a")`` all of them; ``pairs`` everything.
    """

    __slots__ = ("pairs",)

    def __init__(self, source: HeadersLike = ()) -> None:
        self.pairs: tuple[tuple[str, HeaderValue], ...]
        if type(source) is tuple:  # by type: asking an ABC costs more than all the rest
            self.pairs = source
        elif type(source) is dict:
            self.pairs = tuple(source.items())
        elif isinstance(source, Headers):
            self.pairs = source.pairs
        elif isinstance(source, Mapping):
            # pyright also thinks of an Iterable of pairs that is a Mapping of pairs as well.
            self.pairs = tuple(source.items())  # pyright: ignore[reportAttributeAccessIssue]
        else:
            self.pairs = tuple(source)

    def __getitem__(self, name: str) -> HeaderValue:
        for key, value in reversed(self.pairs):
            if key == name:
                return value
        raise KeyError(name)

    def getall(self, name: str) -> tuple[HeaderValue, ...]:
        """Every value of ``name``, in order; empty if there is none."""
        return tuple(value for key, value in self.pairs if key == name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for key, _ in self.pairs))

    def __len__(self) -> int:
        return len({key for key, _ in self.pairs})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return self.pairs == other.pairs
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs)!r})"


NO_HEADERS = Headers()


@dataclass(frozen=True, slots=True)
class Native:
    """Properties of a received message that only ``backend`` has a name for.

    Drivers fill it on receipt. Sent to a channel of the same backend, the message leaves with it,
    less what the message's own fields contradict; other backends leave it out. ``properties`` are
    for users to read, such as RabbitMQ's ``priority``; ``data`` is the driver's alone, of types
    that MessagePack carries. ``resting`` is true among dead letters: what would act there by
    itself, such as an expiration, is kept and does not act.
    """

    backend: str
    data: Any = field(repr=False)
    properties: Mapping[str, Any] = field(default_factory=dict)
    resting: bool = False


class Message(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One message. ``None`` means that the field was not given.

    ``body`` is bytes; ``None`` only on brokers that declare ``tombstone``. ``timestamp_ms`` is
    Unix time in milliseconds. ``id`` is set on everything that Gearshift sends and is the same on
    every copy of it; a foreign message may lack one. ``content_encoding`` names the packing of
    ``body``, such as gzip; Gearshift neither packs nor unpacks. ``native`` is the rest of a
    received message; it does not count when messages are compared. ``replace`` makes a changed
    copy.
    """

    body: bytes | None
    key: Key | None = None
    headers: Headers = NO_HEADERS
    id: str | None = None
    content_type: str | None = None
    timestamp_ms: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    content_encoding: str | None = None
    native: Native | None = None
    _size: int | None = None  # once it was validated

    @property
    def size(self) -> int:
        """Bytes of body, key and headers, as buffers and limits count them."""
        return _size_of(self) if self._size is None else self._size

    def has_header(self, name: str) -> bool:
        """True if there is a header of this name."""
        for pair in self.headers.pairs:  # noqa: SIM110 - a generator costs three times as much
            if pair[0] == name:
                return True
        return False

    def replace(self, **changes: Unpack[Changes]) -> Message:
        """A copy with other values in these fields. Raises TypeError for a name that is none."""
        return Message(**(self._fields() | {"native": self.native} | changes))  # type: ignore[arg-type]

    def __replace__(self, **changes: Any) -> Message:
        """The same for ``copy.replace``, from Python 3.13 on."""
        return self.replace(**changes)

    def _fields(self) -> dict[str, Any]:
        """Fields by name, but for ``native``."""
        return {name: getattr(self, name) for name in _COMPARED}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _COMPARED)

    def __hash__(self) -> int:
        return hash(tuple(self._fields().values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"Message({shown})"


_COMPARED = Message.__struct_fields__[:-2]


class Fields(TypedDict, total=False):
    """Fields of a message beside its value, as ``Producer.message`` takes and explains them."""

    key: Key | None
    headers: HeadersLike | None
    id: str | None
    content_type: str | None
    timestamp_ms: int | None
    correlation_id: str | None
    reply_to: str | None
    type: str | None
    content_encoding: str | None


class Changes(Fields, total=False):
    """Fields of a message, as ``Message.replace`` takes them."""

    body: bytes | None
    native: Native | None


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in a log: ``offset`` in ``partition``, both from 0."""

    partition: int
    offset: int


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The broker has stored the message. ``position`` is where, on brokers that tell.

    ``resent`` is true when a connection was lost in between and it was sent again under the same
    id: then it may be stored twice.
    """

    id: str
    channel: str
    position: Position | None = None
    resent: bool = False


#: The result of sending one message: its receipt, or why there is none.
SendResult: TypeAlias = Receipt | GearshiftError


def _new_ids() -> Iterator[str]:
    """Ids that begin with the time and a random number, and end with a counter."""
    prefix = f"{int(time.time()):08x}{os.urandom(8).hex()}"
    return map(f"{prefix}%08x".__mod__, itertools.count())


def _begin_ids() -> None:
    global _ids
    _ids = _new_ids()


#: Unique like random ones, at a tenth of their price. Replaced in a fork's child.
_ids = _new_ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_ids)


def message_id() -> str:
    """A new id, unique across processes, forks and machines. Any thread; never blocks."""
    return next(_ids)


def as_key(key: bytes | None) -> Key | None:
    """A key from its bytes on the wire: str where they are UTF-8, so that equal keys are equal."""
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def key_bytes(key: Key) -> bytes:
    """Return a key's bytes on the wire."""
    return key.encode() if isinstance(key, str) else key


def _size_of(message: Message) -> int:
    size = len(message.body) if message.body is not None else 0
    if message.key is not None:
        size += _length(message.key)
    for name, value in message.headers.pairs:
        size += _length(name) + _length(value)
    return size


def _length(value: HeaderValue) -> int:
    """Bytes of a header's value or of a key on the wire, about."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    return len(value) if isinstance(value, bytes) else 8
