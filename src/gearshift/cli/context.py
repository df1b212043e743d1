"""Shared by all commands: their options, and the configuration."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from gearshift.errors import GearshiftError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gearshift.bus import Bus
    from gearshift.config import Config

__all__ = [
    "Session",
    "common_options",
    "complete_channel",
    "complete_profile",
    "end_dry_run",
    "note",
    "with_session",
    "yes_option",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Session:
    """One run of the command line: the common options, and the configuration once it is read."""

    def __init__(self) -> None:
        self.config_path: str | None = None
        self.profile: str | None = None
        self.said: set[str] | None = None  #: log lines that are not said again; None: all are
        self.say: Callable[[str], object] = note  #: takes log lines
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


def _session_of(ctx: click.Context) -> Session:
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


def with_session(command: Decorated) -> Decorated:
    """Add the common options, and give the command its Session as the first argument."""
    return common_options(click.pass_obj(command))  # type: ignore[return-value]


def yes_option(command: Decorated) -> Decorated:
    """Add --yes, without which a dangerous verb only says what it would do."""
    return click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed.")(
        command
    )


def end_dry_run(what: str) -> None:
    """Say that it was one. Off a terminal raises UsageError: a script must not take it for done.

    ``what`` did not happen: ``nothing was purged``.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{what}: this was a dry run", hint="add --yes")
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
        found = names(_session_of(ctx).config())
    except GearshiftError:  # without settings there is nothing to offer
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def note(text: str) -> None:
    """A remark for a person: on stderr, so that stdout is data only."""
    click.echo(text, err=True)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        setattr(_session_of(ctx), str(param.name), value)
