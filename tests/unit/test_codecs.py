"""Values to bodies and back: what goes in comes out, and what cannot is refused in words."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearshift import codecs
from gearshift.codecs import codec_named, decode
from gearshift.errors import DecodeError, EncodeError

AUTO, BYTES, TEXT, JSON = (codec_named(name) for name in ("auto", "bytes", "text", "json"))


class Struct(msgspec.Struct):
    n: int


@dataclass
class Plain:
    n: int


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary() | st.text() | json_values.filter(lambda value: value is not None))
def test_auto_gives_back_what_it_was_given(value: Any) -> None:
    """Bytes stay bytes, text text, the rest comes back through JSON, by content type."""
    body, content_type = AUTO.encode(value)
    assert decode(AUTO, body, content_type) == value


@pytest.mark.parametrize("value", [Struct(1), Plain(1)])
@pytest.mark.parametrize("codec", [AUTO, JSON])
def test_typed_payloads_come_back_typed(codec: codecs.Codec, value: Any) -> None:
    """Whatever the content type says."""
    body, _ = codec.encode(value)
    assert decode(codec, body, None, type(value)) == value
    with pytest.raises(DecodeError, match=f"does not decode for {type(value).__name__}"):
        decode(codec, b'{"n": "one"}', "application/json", type(value))


@pytest.mark.parametrize(
    ("content_type", "value"),
    [
        ("application/json", [1]),
        ("application/json; charset=utf-8", [1]),
        ("Application/Vnd.Order+JSON", [1]),
        ("text/plain; charset=utf-8", "[1]"),
        ("application/octet-stream", b"[1]"),
        ("application/x-protobuf", b"[1]"),
        ("application/x-python-pickle", b"[1]"),
        ("nonsense", b"[1]"),
        ("", b"[1]"),
        (None, b"[1]"),
    ],
)
def test_the_content_type_decides_and_an_unknown_one_stays_bytes(
    content_type: str | None, value: Any
) -> None:
    """Parameters and case do not matter."""
    assert decode(AUTO, b"[1]", content_type) == value


@pytest.mark.parametrize(("target", "value"), [(bytes, b"[1]"), (str, "[1]")])
def test_who_asks_for_bytes_or_text_gets_them(target: type, value: Any) -> None:
    """Bytes of any text, text of anything that is not JSON."""
    assert decode(AUTO, b"[1]", "text/plain", target) == value


def test_a_tombstone_is_none_with_every_codec() -> None:
    """No codec sees it."""
    assert [decode(codec, None, None) for codec in (AUTO, BYTES, TEXT, JSON)] == [None] * 4


@pytest.mark.parametrize(
    ("codec", "value", "says"),
    [
        (BYTES, "text", "codec is 'bytes' and cannot encode str"),
        (TEXT, b"bytes", "codec is 'text' and cannot encode bytes"),
        (TEXT, "\ud800", "lone surrogates"),
        (AUTO, "\ud800", "lone surrogates"),
        (JSON, object(), "cannot encode object as JSON"),
        (JSON, {"a": {1, object()}}, "cannot encode dict as JSON"),
        (JSON, math.nan, "holds nan"),
        (JSON, {"deep": [None, -math.inf]}, "holds -inf"),
        (JSON, Struct(math.inf), "holds inf"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_encoded_is_refused(codec: codecs.Codec, value: Any, says: str) -> None:
    """The text says what and why; nothing is written as null behind one's back."""
    with pytest.raises(EncodeError, match=says):
        codec.encode(value)


def test_null_is_a_value() -> None:
    """None inside a value is not mistaken for a number that JSON lacks."""
    assert JSON.encode({"a": None, "b": 1.5}) == (b'{"a":null,"b":1.5}', "application/json")


@pytest.mark.parametrize(
    ("codec", "body"),
    [(JSON, b"{"), (JSON, b""), (JSON, b"\xff"), (JSON, b'{"a": NaN}'), (TEXT, b"abc\xff")],
)
def test_a_body_that_is_not_what_it_says_is_refused(codec: codecs.Codec, body: bytes) -> None:
    """DecodeError, with the decoder's own error as the cause."""
    with pytest.raises(DecodeError) as caught:
        decode(codec, body, None)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"1}")])
def test_json_that_is_too_deep_is_refused(brackets: tuple[bytes, bytes]) -> None:
    """On both ways, without ending the process."""
    opening, closing = brackets
    with pytest.raises(DecodeError, match="nested too deeply"):
        decode(JSON, opening * 100_000 + b"1" + closing * 100_000, None)
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(EncodeError, match="nested too deeply"):
        JSON.encode(value)


@pytest.mark.parametrize("innermost", [1, None, "[{", '"[\\"{', "[" * 600, "]" * 600])
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {'"[': value}])
def test_the_depth_of_json_has_one_limit(wrap: Callable[[Any], Any], innermost: Any) -> None:
    """The same on both ways and on every Python; brackets in texts and keys do not count."""
    value: Any = innermost
    for _ in range(codecs.MAX_JSON_DEPTH):
        value = wrap(value)
    assert decode(JSON, JSON.encode(value)[0], None) == value
    with pytest.raises(EncodeError, match="nested too deeply for JSON; the limit is 500 levels"):
        JSON.encode(wrap(value))
    with pytest.raises(DecodeError, match="nested too deeply; the limit is 500 levels"):
        decode(JSON, msgspec.json.encode(wrap(value)), None)


def test_json_over_the_limit_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text has both sizes; other bodies of that size are fine."""
    monkeypatch.setattr(codecs, "MAX_JSON_BYTES", 10)
    assert decode(JSON, b"123456789 ", None) == 123456789
    with pytest.raises(DecodeError, match="11 bytes is over the limit of 10"):
        decode(JSON, b"123456789  ", None)
    assert decode(AUTO, b"x" * 11, None) == b"x" * 11


@pytest.mark.parametrize(
    ("codec", "value"), [("auto", b'{"n": 1}'), ("json", {"n": 1}), ("text", '{"n": 1}')]
)
def test_a_foreign_body_without_content_type_is_what_the_codec_says(
    codec: str, value: object
) -> None:
    """The default guesses nothing: it stays bytes until the channel names its codec."""
    assert decode(codec_named(codec), b'{"n": 1}', None) == value


GZIPPED = gzip.compress(b'{"n": 1}', mtime=0)


@pytest.mark.parametrize("codec", [AUTO, JSON, TEXT])
@pytest.mark.parametrize(
    ("body", "content_encoding", "said"),
    [
        (GZIPPED, "gzip", r"content_encoding 'gzip'.*gzip\.decompress"),
        (zlib.compress(b"{}"), "Deflate", r"content_encoding 'Deflate'.*zlib\.decompress"),
        ('"ü"'.encode("latin-1"), "latin-1", r"content_encoding 'latin-1'.*decode\('latin-1'\)"),
        ('"ü"'.encode("utf-16"), "utf-16", r"content_encoding 'utf-16'"),
        (GZIPPED, None, "begins like gzip"),
        (b'\0\0\0\1\2{"n": 1}\xff', None, r"schema id 258.*schema registry.*body\[5:\]"),
    ],
)
def test_a_packed_body_is_not_unpacked_and_the_error_says_what_it_is(
    codec: codecs.Codec, body: bytes, content_encoding: str | None, said: str
) -> None:
    """Each with the next step."""
    target = str if codec is TEXT else Struct
    with pytest.raises(DecodeError, match=said):
        decode(codec, body, None, target, content_encoding)


def test_json_behind_a_schema_registrys_prefix_is_named() -> None:
    """Whatever its content type says."""
    with pytest.raises(DecodeError, match="schema registry"):
        decode(AUTO, b'\0\0\0\0\7{"n": 1}', "application/json")


def test_text_of_another_charset_does_not_pass_for_utf_8() -> None:
    """UTF-16 of plain letters is valid UTF-8, with NULs between them."""
    with pytest.raises(DecodeError, match="utf-16-le"):
        decode(TEXT, "ab".encode("utf-16-le"), "text/plain", Any, "utf-16-le")


@pytest.mark.parametrize("content_encoding", ["utf-8", "UTF8", "binary", "identity", "latin-1"])
def test_a_content_encoding_that_changes_nothing_is_no_obstacle(content_encoding: str) -> None:
    """Celery writes utf-8 and binary, and ASCII is ASCII in any charset."""
    assert decode(AUTO, b'{"n":1}', "application/json", Any, content_encoding) == {"n": 1}


def test_who_asks_for_bytes_gets_a_packed_body_as_it_is() -> None:
    """So that it can be unpacked."""
    assert decode(BYTES, GZIPPED, "application/json", Any, "gzip") == GZIPPED
    assert decode(AUTO, GZIPPED, "text/plain", bytes, "gzip") == GZIPPED
