"""Errors of a run as text and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import rich_click as click

from gearshift.cli.context import Session
from gearshift.cli.logs import logs_on_stderr
from gearshift.cli.output import is_plain, printable
from gearshift.errors import ConnectionFailed, GearshiftError, TopologyConflict
from gearshift.exit_codes import exit_code
from gearshift.operations.cleanup import Terminated

__all__ = ["CommandFailed", "end_of_pipe", "guarded", "print_error"]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
TERMINATED = 143  # 128 + SIGTERM
PIPE_CLOSED = 141  # 128 + SIGPIPE


class CommandFailed(GearshiftError):
    """A failure that the command line itself found."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


def guarded(session: Session, call: Callable[[], Any]) -> int:
    """The exit code of ``call``, whose errors become ``error:`` and ``hint:`` lines on stderr."""
    try:
        with session.logs:
            session.logs.enter_context(logs_on_stderr(session))
            code = call()
            return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, click.Abort) as end:
        return TERMINATED if isinstance(end.__context__, Terminated) else INTERRUPTED
    except Exception as error:
        print_error(error, session)
        return _exit_code(error)


def print_error(error: Exception, session: Session) -> None:
    """Print cause and fix, and with -vv the traceback; without secrets."""
    if session.verbose > 1:
        trace = "".join(traceback.format_exception(error))
        click.echo(printable(session.masked(trace)), err=True, nl=False)
    text, hint = _words(error)
    click.echo(f"{_label('error', 'red')} {printable(session.masked(text))}", err=True)
    if hint:
        click.echo(f"{_label('hint', 'cyan')} {printable(session.masked(hint))}", err=True)


def end_of_pipe() -> int:
    """Whoever read stdout has gone: drop what is still to be written, so that nobody complains."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _words(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, GearshiftError):
        place = "/".join(part for part in (error.backend, error.channel) if part)
        return (f"{place}: {error.message}" if place else error.message), _hint(error)
    if isinstance(error, click.UsageError):
        hint = f"see {error.ctx.command_path} --help" if error.ctx else None
        return error.format_message(), hint
    if isinstance(error, click.ClickException):
        return error.format_message(), None
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(filter(None, (error.filename, error.strerror))), None
    return f"{type(error).__name__}: {error}", "this is a bug: please report it with -vv's output"


def _hint(error: GearshiftError) -> str | None:
    """The error's own hint, or what helps with errors of its kind."""
    if error.hint is not None:
        return error.hint
    if isinstance(error, TopologyConflict):
        return "correct the channel's settings, or delete the channel and let it be made again"
    return "gearshift doctor looks for the cause" if isinstance(error, ConnectionFailed) else None


def _exit_code(error: Exception) -> int:
    if isinstance(error, click.FileError):
        return 2  # a file that cannot be read is a wrong argument
    if isinstance(error, CommandFailed | click.ClickException):
        return error.exit_code
    return exit_code(error)


def _label(word: str, colour: str) -> str:
    return f"{word}:" if is_plain() else click.style(f"{word}:", fg=colour, bold=True)
