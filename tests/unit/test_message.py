"""What can be sent on every broker, and what is refused before any of them sees it."""

from __future__ import annotations

import copy
import enum
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gearshift.errors import InvalidMessage
from gearshift.message import (
    NO_HEADERS,
    Headers,
    Key,
    Message,
    Native,
    as_key,
    key_bytes,
    message_id,
)
from gearshift.validation import (
    validate_headers,
    validate_key,
    validate_name,
    validate_text,
    validate_timestamp,
    validated_size,
)


def _pickled(message: Message) -> Message:
    found: Message = pickle.loads(pickle.dumps(message))
    return found


class Code(enum.IntEnum):
    OK = 200


class TestNames:
    @pytest.mark.parametrize("name", ["orders", "a", "Orders.v1-x_y", "...", "x" * 200])
    def test_a_plain_name_is_accepted(self, name: str) -> None:
        assert validate_name(name, "channel") == name

    @pytest.mark.parametrize(
        "name",
        ["", ".", "..", "a/b", "a b", "ä", "x" * 201, "x" * 250, "a\n", "a\0", "a:b", None, 5],
    )
    def test_any_other_is_refused_and_the_text_says_of_what(self, name: Any) -> None:
        with pytest.raises(InvalidMessage, match="channel"):
            validate_name(name, "channel")

    def test_a_long_name_is_not_repeated_in_full(self) -> None:
        with pytest.raises(InvalidMessage, match=r"250 characters") as caught:
            validate_name("x" * 250, "channel")
        assert "x" * 60 not in str(caught.value)


class TestKeys:
    @pytest.mark.parametrize(
        "key", [None, "a", "ü" * 127, "x" * 300, "a b\tc", "a\0b", "", b"", b"\xff\x01"]
    )
    def test_any_text_and_any_bytes_are_a_key(self, key: Key | None) -> None:
        assert validate_key(key) == key

    @pytest.mark.parametrize("key", ["\ud800", 5, bytearray(b"a")])
    def test_what_has_no_bytes_of_its_own_is_refused(self, key: Any) -> None:
        with pytest.raises(InvalidMessage, match="key"):
            validate_key(key)

    @pytest.mark.parametrize("wire", [b"", b"a", "ü".encode(), b"\xff\x01", b"\xed\xa0\x80"])
    def test_a_key_is_its_bytes_and_a_str_where_they_are_utf_8(self, wire: bytes) -> None:
        key = as_key(wire)
        assert key is not None
        assert key_bytes(key) == wire
        assert repr(key).isascii() or key == "ü"


class TestHeaders:
    def test_duplicates_and_order_are_kept_and_the_last_value_wins(self) -> None:
        headers = Headers([("a", 1), ("b", "x"), ("a", 2)])
        assert headers["a"] == 2
        assert headers.getall("a") == (1, 2)
        assert headers.getall("c") == ()
        assert list(headers) == ["a", "b"]
        assert len(headers) == 2
        assert headers.pairs == (("a", 1), ("b", "x"), ("a", 2))
        with pytest.raises(KeyError):
            headers["c"]

    def test_headers_compare_with_each_other_by_pairs_and_with_a_dict_by_values(self) -> None:
        assert Headers({"a": 1}) == {"a": 1}
        assert Headers([("a", 1), ("a", 2)]) != Headers({"a": 2})
        assert hash(Headers({"a": 1})) == hash(Headers([("a", 1)]))
        assert Headers(Headers({"a": 1})) == Headers({"a": 1})
        assert repr(Headers({"a": 1})) == "Headers([('a', 1)])"

    @pytest.mark.parametrize(
        "value", ["", "ü", b"\0\xff", 0, -(2**63), 2**63 - 1, True, Code.OK], ids=repr
    )
    def test_every_type_that_all_brokers_carry_is_accepted(self, value: Any) -> None:
        assert validate_headers({"h": value})["h"] == value

    @pytest.mark.parametrize(
        "value", [None, 1.5, 2**63, -(2**63) - 1, [1], {"a": 1}, {1}, ..., "\ud800"], ids=repr
    )
    def test_any_other_value_is_refused_by_name(self, value: Any) -> None:
        with pytest.raises(InvalidMessage, match="'h'"):
            validate_headers({"h": value})

    @pytest.mark.parametrize(
        "name", ["", "a\0", "a\r", "a\n", "x" * 256, "ü" * 128, "\ud800", 5, None, b"a"], ids=ascii
    )
    def test_a_name_that_some_broker_cannot_carry_is_refused(self, name: Any) -> None:
        with pytest.raises(InvalidMessage, match="header name"):
            validate_headers({name: "x"})

    @pytest.mark.parametrize("name", ["gearshift-attempt", "Gearshift-X", "GEARSHIFT-"])
    def test_reserved_names_are_refused(self, name: str) -> None:
        with pytest.raises(InvalidMessage, match="reserved"):
            validate_headers({name: "x"})

    @pytest.mark.parametrize("headers", [5, "ab", [("a",)], [("a", 1, 2)], [5], object()])
    def test_what_is_no_set_of_pairs_is_refused(self, headers: Any) -> None:
        with pytest.raises(InvalidMessage):
            validate_headers(headers)

    def test_pairs_from_a_generator_are_read_once(self) -> None:
        assert validate_headers((n, 1) for n in "ab").pairs == (("a", 1), ("b", 1))

    @pytest.mark.parametrize("headers", [None, {}, (), NO_HEADERS])
    def test_none_and_empty_are_no_headers(self, headers: Any) -> None:
        assert validate_headers(headers) is NO_HEADERS

    def test_an_int_enum_is_checked_at_once(self) -> None:
        """``in range(...)`` counts up to anything that is not exactly an int: years, here."""
        validate_headers({"h": Code.OK})
        validate_timestamp(Code.OK)


class TestTimestampsAndTexts:
    @pytest.mark.parametrize("value", [0, 1, 2**63 - 1])
    def test_whole_milliseconds_are_accepted(self, value: int) -> None:
        assert validate_timestamp(value) == value

    @pytest.mark.parametrize("value", [-1, 2**63, 1.0, 0.5, float("nan"), True, "1", None])
    def test_any_other_timestamp_is_refused(self, value: Any) -> None:
        with pytest.raises(InvalidMessage, match="timestamp_ms"):
            validate_timestamp(value)

    @pytest.mark.parametrize("text", [None, "x", "ü" * 127])
    def test_a_short_text_is_accepted(self, text: str | None) -> None:
        assert validate_text(text, "reply_to") == text

    @pytest.mark.parametrize("text", ["", "x" * 256, "a\nb", "a\rb", "a\0", 5, b"a", "\ud800"])
    def test_any_other_text_is_refused_by_name(self, text: Any) -> None:
        with pytest.raises(InvalidMessage, match="reply_to"):
            validate_text(text, "reply_to")


class TestSize:
    @pytest.mark.parametrize(
        ("message", "size"),
        [
            (Message(None), 0),
            (Message(b"abc"), 3),
            (Message(b"abc", key="kü"), 6),
            (Message(b"", headers=Headers({"a": "ü", "b": b"xyz", "c": 5, "d": True})), 4 + 21),
        ],
    )
    def test_size_counts_bytes_of_body_key_and_headers(self, message: Message, size: int) -> None:
        assert message.size == size


class TestIds:
    def test_ids_are_unique_and_short_strings(self) -> None:
        ids = {message_id() for _ in range(10_000)}
        assert len(ids) == 10_000
        assert all(len(text) == 32 for text in ids)

    def test_a_fork_gets_a_prefix_of_its_own(self) -> None:
        code = (
            "import os; from gearshift.message import message_id; message_id(); "
            "child = os.fork(); os.write(1, message_id().encode()); child and os.wait()"
        )
        both = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        assert len(both) == 64
        assert both[:24] != both[32:56]

    def test_threads_that_ask_at_once_get_different_ids(self) -> None:
        start, found = threading.Barrier(8), []

        def ask() -> None:
            start.wait()
            found.extend([message_id() for _ in range(1000)])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 8000


class TestCopies:
    def test_a_changed_copy_keeps_all_else_and_is_checked_anew(self) -> None:
        """Also what does not count when messages are compared; the first one stays as it was."""
        message = Message(b"x", "k", native=Native("here", 1), id="a")
        assert validated_size(message) == 2
        copy = message.replace(body=b"xyz", key=None)
        assert (copy.body, copy.key, copy.id, copy.native) == (b"xyz", None, "a", message.native)
        assert (copy.size, message.size, message.body) == (3, 2, b"x")
        with pytest.raises(InvalidMessage, match="header name"):
            validated_size(message.replace(native=None, headers=Headers({"": 1})))
        with pytest.raises(TypeError, match="colour"):
            message.replace(colour="red")  # type: ignore[call-arg]

    @pytest.mark.parametrize("doubled", [copy.copy, copy.deepcopy, _pickled])
    def test_a_copy_is_equal_and_a_hash_alike(self, doubled: Callable[[Message], Message]) -> None:
        """Copied, and pickled to another process; a message with another field is another."""
        message = Message(b"x", "k", Headers({"a": 1}), timestamp_ms=1)
        assert doubled(message) == message == message.replace(native=Native("here", 1))
        assert hash(doubled(message)) == hash(message)
        assert message != message.replace(timestamp_ms=2)
