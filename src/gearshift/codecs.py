"""Codecs turn values into bodies and back: bytes, text and JSON, typed by msgspec. Never pickle.

``auto`` picks by the value's type when sending (bytes stay bytes, str becomes text, everything
else JSON) and by content type when receiving; a body of an unknown content type stays bytes.

Distributions offer further codecs with entry points of the group ``gearshift.codecs``: the name is
the one that configuration uses, the value ``module:object`` with the two methods of ``Codec``.
"""

from __future__ import annotations

import codecs as charsets
import difflib
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import msgspec

from gearshift._core.entry_points import broken, choose, import_entry, installed
from gearshift.errors import ConfigError, DecodeError, EncodeError, GearshiftError

__all__ = ["JSON", "Codec", "codec_named", "decode"]

GROUP = "gearshift.codecs"

BYTES = "application/octet-stream"
TEXT = "text/plain"
JSON = "application/json"

#: Bodies above this are not parsed as JSON: a parsed document takes many times its size.
MAX_JSON_BYTES = 64 * 1024 * 1024
#: Levels of lists and objects within one another: below the limit of every Python, so that each can
#: read what another sends. Python 3.14 writes JSON that it cannot read.
MAX_JSON_DEPTH = 500
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: 1 and -1
_NO_STEPS = bytes(set(range(256)) - set(b"[{]}"))

#: Content encodings that pack, each with the module that unpacks it, if Python has one.
_COMPRESSIONS = {
    **dict.fromkeys(("gzip", "x-gzip", "application/x-gzip"), "gzip"),
    **dict.fromkeys(("deflate", "zlib"), "zlib"),
    "bzip2": "bz2",
    **dict.fromkeys(("br", "compress", "lz4", "snappy", "zstd")),
}

#: Byte 0 and a number of 4 bytes come before what a schema registry's serializer writes.
_REGISTRY_PREFIX = 5


@runtime_checkable
class Codec(Protocol):
    """Encodes one channel's values and decodes its bodies. Any thread.

    ``encode`` returns the body and its content type, or raises EncodeError. ``decode`` returns a
    ``target``, the type that the caller wants (``Any`` if none), or raises DecodeError.
    """

    def encode(self, value: object) -> tuple[bytes, str]: ...

    def decode(self, body: bytes, content_type: str | None, target: Any) -> Any: ...


class _Bytes:
    def encode(self, value: object) -> tuple[bytes, str]:
        if isinstance(value, bytes):
            return value, BYTES
        if isinstance(value, bytearray | memoryview):
            return bytes(value), BYTES
        raise EncodeError(
            f"this channel's codec is 'bytes' and cannot encode {type(value).__name__}",
            hint='send bytes, or set codec = "json" or "text" for the channel',
        )

    def decode(self, body: bytes, content_type: str | None, target: Any) -> Any:
        return body


class _Text:
    def encode(self, value: object) -> tuple[bytes, str]:
        if not isinstance(value, str):
            raise EncodeError(
                f"this channel's codec is 'text' and cannot encode {type(value).__name__}",
                hint='send str, or set codec = "json" or "bytes" for the channel',
            )
        try:
            return value.encode(), TEXT
        except UnicodeEncodeError:
            raise EncodeError("the text holds lone surrogates and has no UTF-8 form") from None

    def decode(self, body: bytes, content_type: str | None, target: Any) -> Any:
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(
                f"body is not UTF-8 text: byte {error.start} cannot be decoded"
            ) from error


class _Json:
    def encode(self, value: object) -> tuple[bytes, str]:
        dump = getattr(value, "model_dump_json", None)
        if dump is not None:  # a pydantic model; pydantic itself is never imported
            return str(dump()).encode(), JSON
        try:
            body = msgspec.json.encode(value)
            _limit_depth(body)
        except RecursionError:
            raise EncodeError(
                f"the value is nested too deeply for JSON; the limit is {MAX_JSON_DEPTH} levels"
            ) from None
        except (TypeError, ValueError) as error:
            raise EncodeError(
                f"cannot encode {type(value).__name__} as JSON: {error}",
                hint="send what JSON knows, a msgspec Struct, a dataclass, or bytes",
            ) from error
        if b"null" in body:
            _refuse_nan(value)
        return body, JSON

    def decode(self, body: bytes, content_type: str | None, target: Any) -> Any:
        if len(body) > MAX_JSON_BYTES:
            raise DecodeError(
                f"JSON body of {len(body)} bytes is over the limit of {MAX_JSON_BYTES}"
            )
        validate = getattr(target, "model_validate_json", None)
        try:
            _limit_depth(body)
            if validate is not None:
                return validate(body)
            return msgspec.json.decode(body, type=target)
        except RecursionError:
            raise DecodeError(
                f"JSON body is nested too deeply; the limit is {MAX_JSON_DEPTH} levels"
            ) from None
        except ValueError as error:  # msgspec.DecodeError, pydantic.ValidationError, bad UTF-8
            wanted = "" if target is Any else f" for {getattr(target, '__name__', target)}"
            raise DecodeError(f"JSON body does not decode{wanted}: {error}") from error


class _Auto:
    def encode(self, value: object) -> tuple[bytes, str]:
        if isinstance(value, bytes | bytearray | memoryview):
            return CODECS["bytes"].encode(value)
        if isinstance(value, str):
            return CODECS["text"].encode(value)
        return CODECS["json"].encode(value)

    def decode(self, body: bytes, content_type: str | None, target: Any) -> Any:
        if target is not Any and target not in (bytes, str):
            return CODECS["json"].decode(body, content_type, target)
        essence = (content_type or "").partition(";")[0].strip().lower()
        if essence == JSON or essence.endswith("+json"):
            return CODECS["json"].decode(body, content_type, target)
        if target is not bytes and (target is str or essence == TEXT):
            return CODECS["text"].decode(body, content_type, target)
        return body


CODECS: dict[str, Codec] = {"auto": _Auto(), "bytes": _Bytes(), "text": _Text(), "json": _Json()}


def codec_named(name: str) -> Codec:
    """Return the codec that configuration calls ``name``; imports it if it is a plugin.

    Raises ConfigError listing the choices, PluginConflict, PluginImportError and PluginError.
    """
    if name in CODECS:
        return CODECS[name]
    entries = installed(GROUP)
    entry = choose(name, entries)
    if entry is None:
        names = [*CODECS, *(entry.name for entry in entries)]
        close = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"unknown codec {name!r}", hint=f"{meant}Known: {', '.join(names)}")
    codec = import_entry(entry)
    if isinstance(codec, type) or not isinstance(codec, Codec):
        raise broken(entry, f"{entry.module} is not an object with the methods encode and decode")
    return _Plugin(name, codec)


@dataclass(frozen=True, slots=True)
class _Plugin:
    """Another distribution's codec; what it raises becomes an EncodeError or DecodeError."""

    name: str
    codec: Codec

    def encode(self, value: object) -> tuple[bytes, str]:
        try:
            body, content_type = self.codec.encode(value)
            return bytes(body), content_type
        except GearshiftError:
            raise
        except Exception as error:
            raise EncodeError(
                f"codec {self.name!r} cannot encode {type(value).__name__}: {error}"
            ) from error

    def decode(self, body: bytes, content_type: str | None, target: Any) -> Any:
        try:
            return self.codec.decode(body, content_type, target)
        except GearshiftError:
            raise
        except Exception as error:
            raise DecodeError(f"codec {self.name!r} cannot decode the body: {error}") from error


def decode(
    codec: Codec,
    body: bytes | None,
    content_type: str | None,
    target: Any = Any,
    content_encoding: str | None = None,
) -> Any:
    """Return the value of a received body; None for a tombstone. Raises DecodeError.

    Nothing is unpacked: a few bytes of gzip may hold gigabytes. The error says what was found.
    """
    if body is None:
        return None
    try:
        value = codec.decode(body, content_type, target)
    except DecodeError as error:
        packed = _packed(body, content_encoding)
        if packed is None:
            raise
        raise packed from error
    if content_encoding and isinstance(value, str) and not isinstance(codec, _Plugin):
        # Text of another charset can pass for UTF-8. JSON cannot: its syntax would not fit.
        packed = _packed(body, content_encoding)
        if packed is not None:
            raise packed
    return value


def _packed(body: bytes, content_encoding: str | None) -> DecodeError | None:
    """The error of a body that is not plain UTF-8; None if it may be."""
    encoding = (content_encoding or "").strip().lower()
    if encoding in _COMPRESSIONS:
        module = _COMPRESSIONS[encoding]
        using = f", such as with {module}.decompress" if module else ""
        return DecodeError(
            f"the body has content_encoding {content_encoding!r}, which is not unpacked here",
            hint=f"unpack delivery.body yourself{using}, and bound its size; or name a codec of "
            "your own for the channel",
        )
    if encoding and not _is_utf8(body, encoding):
        return DecodeError(
            f"the body has content_encoding {content_encoding!r}, only UTF-8 is decoded here",
            hint=f"delivery.body.decode({content_encoding!r}) may give its text; or name a codec "
            "of your own for the channel",
        )
    if body[:2] == b"\x1f\x8b":
        return DecodeError(
            "the body begins like gzip, though it has no content_encoding",
            hint="unpack delivery.body yourself, such as with gzip, and bound its size",
        )
    if body[:1] == b"\0" and len(body) > _REGISTRY_PREFIX:
        schema = int.from_bytes(body[1:_REGISTRY_PREFIX], "big")
        return DecodeError(
            f"the body begins with byte 0 and the schema id {schema}, as serializers of a schema "
            "registry write it",
            hint=f"what they wrote begins at delivery.body[{_REGISTRY_PREFIX}:], in JSON, Avro or "
            "Protobuf; decode it yourself, or name a codec of your own for the channel",
        )
    return None


def _is_utf8(body: bytes, encoding: str) -> bool:
    """True if UTF-8 gives the same text, and for a name that is not a charset, as 'binary'."""
    try:
        charsets.lookup(encoding)
        return body.decode(encoding) == body.decode()
    except LookupError:
        return True
    except ValueError:
        return False


def _limit_depth(body: bytes) -> None:
    """Raise RecursionError, as the parser does, for JSON that is nested over the limit."""
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return
    without_escapes = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_texts = b"".join(without_escapes.split(b'"')[::2])
    steps = memoryview(outside_texts.translate(_STEPS, _NO_STEPS)).cast("b")
    if max(accumulate(steps), default=0) > MAX_JSON_DEPTH:
        raise RecursionError


def _refuse_nan(value: object) -> None:
    """Raise EncodeError for NaN and infinity, for which msgspec writes null."""
    pending = [msgspec.to_builtins(value)]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):
            raise EncodeError(
                f"the value holds {item}, which JSON cannot carry", hint="send None or a str"
            )
