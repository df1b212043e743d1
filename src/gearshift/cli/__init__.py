"""The command line: ``gearshift``. It parses, calls the library and prints; nothing else.

Data goes to stdout; notes, progress and errors to stderr. Each command is a file of this folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import rich_click as click

from gearshift import __version__
from gearshift.cli.context import Session, common_options
from gearshift.cli.errors import end_of_pipe, guarded
from gearshift.cli.output import is_plain

__all__ = ["COMMANDS", "cli", "load_command"]

#: Help's panels, what a newcomer needs first comes first: each command, which is a module of this
#: folder, and the first sentence of its help. Help is printed without importing any of them.
COMMANDS = {
    "Start": {
        "init": "Write a commented gearshift.toml into this folder.",
        "doctor": "Check everything from the settings to a round trip.",
        "config": "Show the settings and where they come from.",
        "completion": "Print the completion script for a shell.",
    },
    "Decide": {
        "compare": "Run the same workload on each column and show what each does.",
        "rehearse": "Try a switch on copies of a live channel's messages and show what differs.",
        "prove": "Do to handlers what a profile may do to them, and show what breaks them.",
        "explain": "Say in plain words what each channel guarantees on a profile.",
        "bench": "Measure sending and receiving on a profile's broker, beside its own client.",
        "backends": "List the installed backends, or all that one of them can do.",
    },
    "Messages": {
        "send": "Send each line of FILE, or of stdin, as a message.",
        "tail": "Print messages as they come, one JSON object per line.",
        "peek": "Print what waits for a group of a queue, one JSON object per line.",
        "replay": "Print what a stream holds, one JSON object per line, and end.",
    },
    "Operate": {
        "ls": "List channels, their groups and what waits for them.",
        "top": "Show what goes on in channels, groups and handlers.",
        "dlq": "Look at dead letters, bring them back, or throw them away.",
        "run": "Run the handlers of an app until SIGTERM or Ctrl-C.",
        "purge": "Throw away what waits for a group of a channel.",
    },
    "Author": {"conformance": "Run the conformance kit against PROFILE's broker."},
}

HELP: dict[str, Any] = {
    "theme": "default-slim",
    "command_groups": {
        "gearshift": [{"name": name, "commands": list(them)} for name, them in COMMANDS.items()]
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The named command itself, in place of the entry that help has of it."""
        name, entry, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and entry else None, rest

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


def load_command(name: str) -> click.Command:
    """Import the command called ``name``."""
    command: click.Command = import_module(f"gearshift.cli.{name}").command
    return command


for _commands in COMMANDS.values():
    for _name, _help in _commands.items():
        cli.add_command(click.RichCommand(name=_name, help=_help))
