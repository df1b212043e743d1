"""The library's log lines on stderr, while a command runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from gearshift.cli.context import Session
from gearshift.cli.output import printable

__all__ = ["logs_on_stderr"]


@contextlib.contextmanager
def logs_on_stderr(session: Session) -> Iterator[None]:
    """Show the library's warnings, with -v and -vv more. Clients' own logs stay silent: their
    errors reach us as exceptions, and their texts may hold secrets."""
    handler, ours = _StderrHandler(session), logging.getLogger("gearshift")
    level, propagate, last_resort = ours.level, ours.propagate, logging.lastResort
    ours.addHandler(handler)
    # Not a handler on the root logger: a module of the user's may want to configure that.
    logging.lastResort = logging.NullHandler()
    ours.setLevel(logging.DEBUG)
    ours.propagate = False
    try:
        yield
    finally:
        ours.setLevel(level)
        ours.propagate = propagate
        ours.removeHandler(handler)
        logging.lastResort = last_resort


class _StderrHandler(logging.Handler):
    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        """The record, if this session's -v asks for its level; never raises.

        With the traceback that it carries: it is of the user's own code, such as a handler.
        """
        levels = (logging.WARNING, logging.INFO, logging.DEBUG)
        if record.levelno < levels[min(self._session.verbose, 2)]:
            return
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        said = self._session.said
        if said is not None and text in said:
            return
        if said is not None:
            said.add(text)
        with contextlib.suppress(OSError, ValueError):
            self._session.say(printable(self._session.masked(text)))
