"""Lines of a file or pipe, as they come."""

from __future__ import annotations

import select
from typing import BinaryIO

__all__ = ["LineReader"]

_CHUNK = 1 << 16


class LineReader:
    """Reads numbered lines and knows when there is none at present.

    So ``send`` can wait for confirmations while its input is a program that writes slowly.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._rest = b""
        self._lines: list[bytes] = []  # the next one is the last
        self._read = getattr(stream, "read1", stream.read)
        self.name = name
        self.number = 0  #: of the line that was returned last
        self.ended = False  #: True once the last line was returned

    def next(self, *, wait: bool) -> bytes | None:
        """The next line without its end; None at the end or, without ``wait``, if none is there."""
        while not self._lines and not self.ended:
            if not wait and not self._is_readable():
                return None
            self._fill()
        if not self._lines:
            return None
        self.number += 1
        return self._lines.pop()

    @property
    def place(self) -> str:
        """File and number of the line that was returned last."""
        return f"{self.name}:{self.number}"

    def _fill(self) -> None:
        chunk = self._read(_CHUNK)
        if chunk:
            *complete, self._rest = (self._rest + chunk).split(b"\n")
        else:
            complete, self._rest = [self._rest] if self._rest else [], b""
            self.ended = True
        self._lines = [line.removesuffix(b"\r") for line in reversed(complete)]

    def _is_readable(self) -> bool:
        try:
            return bool(select.select([self._stream], [], [], 0)[0])
        except (OSError, ValueError):  # no file of the system, or one that cannot be asked
            return True
