"""Single keys, without Enter, while something is shown on a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from types import TracebackType
from typing import Any, Self

__all__ = ["Keys"]


class Keys:
    """The keys that are pressed during a ``with`` block; none where stdin is not a terminal.

    Neither are there any on Windows. Ctrl-C raises KeyboardInterrupt as ever.
    """

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(ImportError):
            import termios
            import tty

            with contextlib.suppress(termios.error, OSError, ValueError):
                self._before = termios.tcgetattr(sys.stdin)
                tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def read(self, timeout_s: float) -> str:
        """The next key; "" if none is pressed within so many seconds."""
        if self._before is None:
            time.sleep(timeout_s)
            return ""
        if not select.select([sys.stdin], [], [], timeout_s)[0]:
            return ""
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace")
