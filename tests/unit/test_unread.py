"""Received messages of which only the body was read."""

from __future__ import annotations

import copy
import pickle
from typing import Any

from gearshift.driver.helpers import UnreadMessage
from gearshift.embedded.sqlite.rows import UnreadRow, encode
from gearshift.message import Headers, Message

WHOLE = Message(b"x", "k", Headers([("a", 1), ("a", 2)]), "id-1", "text/plain", 5, type="t")


class Unread(UnreadMessage, frozen=True, gc=False):
    """Counts in ``source`` how often it was read."""

    def read(self) -> Message:
        self.source.append(1)
        return WHOLE


def test_nothing_is_read_for_the_body_and_all_at_once_for_the_rest() -> None:
    """The first field that is asked for reads the others too."""
    reads: list[int] = []
    message = Unread(b"x", source=reads)
    assert (message.body, reads) == (b"x", [])
    assert [getattr(message, name) for name in Message.__struct_fields__[:-1]] == [
        getattr(WHOLE, name) for name in Message.__struct_fields__[:-1]
    ]
    assert (message.size, reads) == (WHOLE.size, [1])


def test_an_unread_message_is_equal_to_the_same_one_read() -> None:
    """Also by hash and repr, and in every kind of copy: what was not read is not lost."""
    message: Any = Unread(b"x", source=[])
    assert message == WHOLE
    assert message == WHOLE
    assert (hash(message), repr(message)) == (hash(WHOLE), repr(WHOLE))
    assert copy.copy(message) == copy.deepcopy(message) == WHOLE
    assert pickle.loads(pickle.dumps(message)) == WHOLE
    assert message.replace(body=b"y") == WHOLE.replace(body=b"y")


def test_a_row_of_sqlite_knows_its_headers_by_name() -> None:
    """A name that is only in a value, or names a field, is no header."""
    stored = Message(b"x", "k", Headers({"tenant": "colour"}), "id-1", "text/plain", 5)
    key, body, meta = encode(stored)
    row = UnreadRow(body, source=meta, stored_key=key)
    assert row == stored
    assert [row.has_header(name) for name in ("tenant", "colour", "id-1", "size")] == [
        True, False, False, False,
    ]  # fmt: skip
