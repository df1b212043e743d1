"""Gearshift's own log lines: few of a kind, and on stderr only if nobody has said where to.

A service's logging is the service's. The library logs to ``gearshift.*`` and configures nothing;
``gearshift run`` shows these lines where the application has set up no logging.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["FORMAT", "SAY_AGAIN_S", "LimitedLog", "to_stderr"]

FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"

#: So many lines of a kind in so many seconds; the next one says how many were left out.
BURST = 10
PERIOD_S = 60.0

#: How often it is said that there is still no connection. Seconds.
SAY_AGAIN_S = 30.0

_MAX_KINDS = 1000

logging.getLogger("gearshift").addHandler(logging.NullHandler())


def to_stderr(masked: Callable[[str], str] = str) -> None:
    """Show Gearshift's lines from INFO on, unless the application has configured logging.

    That is, if it has put a handler on the root logger or on ours, whenever it does so. ``masked``
    takes secrets out of a line. Call it once a process, after the application was imported.
    """
    ours = logging.getLogger("gearshift")
    if _configured(ours) or _configured(logging.getLogger()):
        return
    handler = _Stderr()
    handler.setFormatter(_Masking(masked))
    ours.addHandler(handler)
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)


def _configured(logger: logging.Logger) -> bool:
    return any(not isinstance(one, logging.NullHandler) for one in logger.handlers)


class _Stderr(logging.StreamHandler[Any]):
    """Silent once there is a handler on the root logger, which is given the same records."""

    def filter(self, record: logging.LogRecord) -> Any:
        return not _configured(logging.getLogger()) and super().filter(record)


class _Masking(logging.Formatter):
    def __init__(self, masked: Callable[[str], str]) -> None:
        super().__init__(FORMAT)
        self._masked = masked

    def format(self, record: logging.LogRecord) -> str:
        return self._masked(super().format(record))


class LimitedLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that writes at most ``burst`` lines of a kind in ``period_s`` seconds. Any thread.

    Lines are of one kind if their text before formatting and its first argument are the same: begin
    with the handler or the channel. The next line of a kind says how many were left out.
    ``_lock`` guards ``_kinds``.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        burst: int = BURST,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logger, {})
        self._burst = burst
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[object, str], tuple[float, int]] = {}  # since when, how many

    def log(self, level: int, msg: object, *args: Any, **options: Any) -> None:
        """Log it, unless there were enough of its kind."""
        if not self.isEnabledFor(level):
            return
        left_out = self._left_out((msg, str(args[0]) if args else ""))
        if left_out is None:
            return
        if left_out:
            msg, args = f"{msg} (and %d more like this)", (*args, left_out)
        self.logger.log(level, msg, *args, **options)

    def _left_out(self, kind: tuple[object, str]) -> int | None:
        """None if this line is to be left out, else how many were since the last one."""
        with self._lock:
            now = self._clock()
            since, count = self._kinds.get(kind, (now, 0))
            left_out = 0
            if now - since >= self._period_s:
                left_out, since, count = max(0, count - self._burst), now, 0
            if len(self._kinds) >= _MAX_KINDS:
                self._kinds.clear()
            self._kinds[kind] = (since, count + 1)
            return left_out if count < self._burst else None
