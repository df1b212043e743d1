"""Values to bodies and back: what goes in comes out, and what cannot is refused in words."""

from __future__ import annotations

import math
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
    [
        (JSON, b"{"),
        (JSON, b""),
        (JSON, b"\xff"),
        (JSON, b'{"a": NaN}'),
        (TEXT, b"abc\xff"),
    ],
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
