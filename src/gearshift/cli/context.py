"""Shared by all commands: their options, the configuration, errors as text and exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from gearshift.cli.output import is_plain, printable
from gearshift.errors import ConnectionFailed, GearshiftError, TopologyConflict
from gearshift.exit_codes import exit_code
from gearshift.operations.cleanup import Terminated

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gearshift.bus import Bus
    from gearshift.config import Config

__all__ = [
    "CommandFailed",
    "Session",
    "common_options",
    "complete_channel",
    "complete_profile",
    "end_dry_run",
    "end_of_pipe",
    "guarded",
    "note",
    "print_error",
    "session_of",
    "yes_option",
]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
TERMINATED = 143  # 128 + SIGTERM
PIPE_CLOSED = 141  # 128 + SIGPIPE

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class CommandFailed(GearshiftError):
    """A failure that the command line itself found."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class Session:
    """One run of the command line: the common options, and the configuration once it is read."""

    def __init__(self) -> None:
        self.config_path: str | None = None
        self.profile: str | None = None
        self.said: set[str] | None = None  #: log lines that are not said again; None: all are
        self.verbose = 0
        self.logs = contextlib.ExitStack()
        self._config: Config | None = None

    def config(self) -> Config:
        """The configuration, read once. Raises ConfigError."""
        if self._config is None:
            from gearshift.config import load

            self._config = load(self.config_path, profile=self.profile)
        return self._config

    @contextlib.contextmanager
    def bus(self, profile: str | None = None) -> Iterator[Bus]:
        """The broker that the configuration selects, or that of ``profile``; closed afterwards."""
        from gearshift.bus import open_bus
        from gearshift.config import load

        other = load(self.config_path, profile=profile) if profile else None
        with open_bus(config=other or self.config()) as bus:
            yield bus

    def leave_logs_alone(self) -> None:
        """Undo what was done to logging: this command runs an application, whose affair it is."""
        self.logs.close()
        if self.verbose:
            logging.getLogger("gearshift").setLevel(logging.DEBUG)

    def masked(self, text: str) -> str:
        """``text`` without the secrets of the configuration."""
        return self._config.masked(text) if self._config is not None else text


def session_of(ctx: click.Context) -> Session:
    """The session of this run."""
    return ctx.find_root().ensure_object(Session)


def common_options(command: Decorated) -> Decorated:
    """Add --config, --profile and -v, which may stand before and after the command's name."""
    options = (
        click.option(
            "--config",
            "config_path",
            metavar="FILE",
            help="Settings file; else the nearest gearshift.toml.",
            expose_value=False,
            callback=_remember,
        ),
        click.option(
            "--profile",
            metavar="NAME",
            help="Profile to use instead of the file's.",
            expose_value=False,
            callback=_remember,
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            metavar="BOOLEAN",  # takes no value, so rich-click is to show none
            help="Say more; -vv also where an error arose.",
            expose_value=False,
            callback=_remember,
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def yes_option(command: Decorated) -> Decorated:
    """Add --yes, without which a dangerous verb only says what it would do."""
    return click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed.")(
        command
    )


def end_dry_run(what: str) -> None:
    """Say that it was one. Off a terminal raises CommandFailed: a script must not take it for done.

    ``what`` did not happen: ``nothing was purged``.
    """
    if not sys.stdin.isatty():
        raise CommandFailed(f"{what}: this was a dry run", hint="add --yes", exit_code=2)
    note("this was a dry run; --yes does it")


def complete_channel(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The configured channels that begin with ``incomplete``."""
    return _completed(ctx, lambda config: config.channels, incomplete)


def complete_profile(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The profiles that begin with ``incomplete``."""
    return _completed(ctx, lambda config: config.profiles, incomplete)


def _completed(
    ctx: click.Context, names: Callable[[Config], Iterable[str]], incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    try:
        found = names(session_of(ctx).config())
    except GearshiftError:  # without settings there is nothing to offer
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def note(text: str) -> None:
    """A remark for a person: on stderr, so that stdout is data only."""
    click.echo(text, err=True)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────


def guarded(session: Session, call: Callable[[], Any]) -> int:
    """The exit code of ``call``, whose errors become ``error:`` and ``hint:`` lines on stderr."""
    try:
        with session.logs:
            session.logs.enter_context(_logs_on_stderr(session))
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


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        setattr(session_of(ctx), str(param.name), value)


# ── Logs ─────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _logs_on_stderr(session: Session) -> Iterator[None]:
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
            click.echo(printable(self._session.masked(text)), err=True)
