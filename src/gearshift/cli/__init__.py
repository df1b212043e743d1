"""The command line: ``gearshift``. It parses, calls the library and prints; nothing else.

Data goes to stdout; notes, progress and errors to stderr. Each command is a file of this folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import rich_click as click

from gearshift import __version__
from gearshift.cli import (
    backends,
    bench,
    compare,
    completion,
    config,
    conformance,
    dlq,
    doctor,
    explain,
    init,
    ls,
    peek,
    purge,
    replay,
    run,
    send,
    tail,
)
from gearshift.cli.context import Session, common_options, end_of_pipe, guarded
from gearshift.cli.output import is_plain

__all__ = ["cli", "main"]

#: Help's panels: what a newcomer needs first comes first.
GROUPS = {
    "Start": ["init", "doctor", "config", "completion"],
    "Decide": ["compare", "explain", "bench", "backends"],
    "Messages": ["send", "tail", "peek", "replay"],
    "Operate": ["ls", "dlq", "run", "purge"],
    "Author": ["conformance"],
}

HELP: dict[str, Any] = {
    "theme": "default-slim",
    "command_groups": {
        "gearshift": [{"name": name, "commands": names} for name, names in GROUPS.items()]
    },
    "options_panel_title": "Options",
    "text_markup": "rich",
    "text_paragraph_linebreaks": "\n\n",
    "padding_helptext_first_line": (0, 0, 1, 0),
    "options_table_help_sections": ["help", "required", "default"],
    "max_width": 88,
    "force_terminal": None,  # not because of a CI's variable: no escape codes in a pipe
} | ({"color_system": None} if is_plain() else {})


class Application(click.RichGroup):
    """The group of all commands, which ends every error in text and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Parse ``args`` and run; a command's number is the exit code."""
        session = Session()
        call = partial(
            super().main,
            args,
            prog_name or "gearshift",
            complete_var,
            standalone_mode=False,
            windows_expand_args=windows_expand_args,
            obj=session,
            **extra,
        )
        code = guarded(session, call)
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that went away (``| head``) ends it without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return end_of_pipe()


@click.group(
    cls=Application,
    name="gearshift",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.rich_config(help_config=HELP)
@common_options
@click.version_option(__version__, message="gearshift %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """One Producer/Consumer interface over message brokers.

    The broker is a line of gearshift.toml: [bold]gearshift init[/bold] writes one,
    [bold]gearshift doctor[/bold] checks it.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _module in (
    backends, bench, compare, completion, config, conformance, dlq, doctor, explain, init, ls, peek,
    purge, replay, run, send, tail,
):  # fmt: skip
    cli.add_command(_module.command)


def main() -> NoReturn:
    """The entry point of the ``gearshift`` script."""
    cli()
    raise AssertionError("a command ends the process")
