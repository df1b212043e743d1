"""What may be sent: names of channels and groups, keys, headers, texts and times.

Every broker can carry what passes here. All raise InvalidMessage, with what to write instead.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import force_setattr

from gearshift.errors import InvalidMessage
from gearshift.message import NO_HEADERS, RESERVED_PREFIX, Headers, HeadersLike, Key, Message

__all__ = [
    "as_headers",
    "validate_header_name",
    "validate_headers",
    "validate_key",
    "validate_name",
    "validate_text",
    "validate_timestamp",
    "validated_size",
]

#: Longest channel or group name: what is left of a Kafka topic name with room for suffixes.
MAX_NAME_LENGTH = 200

_TEXTS = ("id", "content_type", "correlation_id", "reply_to", "type", "content_encoding")
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def validated_size(message: Message) -> int:
    """Check every field, whoever made the message, and return its size. Raises InvalidMessage.

    A message never changes, so it is checked once. One that came from a broker may have names and
    texts that no sender may choose.
    """
    if message._size is not None:
        return message._size
    if message.body is not None and not isinstance(message.body, bytes):
        raise InvalidMessage(
            f"Message.body must be bytes, got {type(message.body).__name__}",
            hint="use producer.message(value), which encodes",
        )
    validate_key(message.key)
    if message.timestamp_ms is not None:
        validate_timestamp(message.timestamp_ms)
    if message.native is None:
        if message.headers.pairs:
            validate_headers(message.headers)
        for field_name in _TEXTS:
            text = getattr(message, field_name)
            if text is not None:
                validate_text(text, field_name)
    size = message.size
    force_setattr(message, "_size", size)
    return size


def validate_name(name: object, what: str) -> str:
    """Return ``name`` if it can name a channel or group on every broker, else raise.

    Letters, digits, ``.``, ``_`` and ``-``; 1 to 200 characters; not ``.`` or ``..``.
    """
    if not isinstance(name, str):
        raise InvalidMessage(f"{what} must be str, got {type(name).__name__}")
    if (
        not name
        or name in (".", "..")
        or len(name) > MAX_NAME_LENGTH
        or set(name) - _NAME_CHARACTERS
    ):
        shown = name if len(name) <= 40 else f"{name[:40]}... ({len(name)} characters)"
        raise InvalidMessage(
            f"{what} {shown!r} is not a valid name",
            hint=f"use 1 to {MAX_NAME_LENGTH} of letters, digits, '.', '_' and '-', "
            "and not '.' or '..'",
        )
    return name


def validate_key(key: object) -> Key | None:
    """Return ``key`` if it is None, bytes, or a str that has a UTF-8 form, else raise."""
    if key is None or isinstance(key, bytes):
        return key
    if not isinstance(key, str):
        raise InvalidMessage(
            f"key must be str, bytes or None, got {type(key).__name__}", hint="use str(key)"
        )
    if not key.isascii():
        _utf8(key, "key")
    return key


def validate_headers(headers: HeadersLike | None) -> Headers:
    """Return ``headers`` as Headers if every broker can carry them, else raise InvalidMessage."""
    checked = as_headers(headers)
    try:
        for name, value in checked.pairs:
            validate_header_name(name)
            if not (isinstance(value, str) and value.isascii()):
                _validate_header_value(name, value)
    except InvalidMessage:
        raise
    except (TypeError, ValueError):
        raise _not_headers() from None
    return checked


def as_headers(headers: HeadersLike | None) -> Headers:
    """``headers`` as Headers, not yet checked one by one. Raises InvalidMessage."""
    if type(headers) is not dict and isinstance(headers, Headers):
        return headers
    if not headers:
        return NO_HEADERS
    try:
        return Headers(headers)
    except (TypeError, ValueError):
        raise _not_headers() from None


def _not_headers() -> InvalidMessage:
    return InvalidMessage(
        "headers must be a mapping or (name, value) pairs", hint='use {"name": "value"}'
    )


def validate_timestamp(timestamp_ms: object) -> int:
    """Return ``timestamp_ms`` if it is whole, not negative and fits 63 bits, else raise."""
    if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int):
        raise InvalidMessage(
            f"timestamp_ms must be a whole number of milliseconds, got {timestamp_ms!r}",
            hint="use int(seconds * 1000)",
        )
    if not 0 <= timestamp_ms <= _INT64_MAX:
        raise InvalidMessage(
            f"timestamp_ms {timestamp_ms!r} is out of range", hint="use Unix time in ms"
        )
    return timestamp_ms


def validate_text(text: object, what: str) -> str | None:
    """Return ``text`` if it is None or fits an AMQP short string (255 bytes), else raise."""
    if text is None:
        return None
    if isinstance(text, str) and 0 < len(text) <= 255 and text.isascii() and text.isprintable():
        return text  # the common case, without encoding it
    if not isinstance(text, str) or not text:
        raise InvalidMessage(f"{what} must be a non-empty str, got {text!r}")
    if len(_utf8(text, what)) > 255 or _has_control(text):
        raise InvalidMessage(f"{what} must be at most 255 bytes without NUL, CR or LF")
    return text


@lru_cache(maxsize=1024)  # a program has few names and uses them again and again
def validate_header_name(name: str) -> None:
    """Raise unless a sender may choose this header name."""
    if not isinstance(name, str):
        raise InvalidMessage(f"header name must be str, got {name!r}")
    if not name or _has_control(name) or len(_utf8(name, "header name")) > 255:
        raise InvalidMessage(
            f"header name {name[:40]!r} is not valid",
            hint="use 1 to 255 bytes of UTF-8 without NUL, CR or LF",
        )
    if name.lower().startswith(RESERVED_PREFIX):
        raise InvalidMessage(
            f"header {name!r} is reserved", hint=f"names in {RESERVED_PREFIX}* are ours"
        )


def _validate_header_value(name: str, value: object) -> None:
    if isinstance(value, bool | bytes):
        return
    if isinstance(value, str):
        _utf8(value, f"header {name!r}")
    elif isinstance(value, int):
        # Compared, not looked up in a range: that would count up to an IntEnum one by one.
        if not _INT64_MIN <= value <= _INT64_MAX:
            raise InvalidMessage(f"header {name!r} is over 64 bits", hint="send it as str")
    else:
        raise InvalidMessage(
            f"header {name!r} has a value of type {type(value).__name__}",
            hint="use str, bytes, int or bool",
        )


def _has_control(text: str) -> bool:
    return "\0" in text or "\r" in text or "\n" in text


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(f"{what} {text[:40]!r} is not valid Unicode") from None
