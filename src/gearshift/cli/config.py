"""``gearshift config``: what is set, and where it comes from."""

from __future__ import annotations

import rich_click as click

from gearshift.cli.context import CommandFailed, common_options, note, session_of
from gearshift.cli.output import cell, emit, new_table, output_option
from gearshift.errors import PluginError

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Show the settings and where they come from."""


@command.command("show")
@output_option
@common_options
@click.pass_context
def show(ctx: click.Context, output: str) -> None:
    """Every effective setting and its origin; secrets masked.

    Only the selected profile is shown: choose another one with --profile.
    """
    from gearshift import plugins

    settings = session_of(ctx).config()
    try:
        plugin = plugins.load(settings.backend)
    except PluginError as error:
        plugin = None
        note(f"note: defaults of the backend are missing here: {error}")
    rows = settings.rows(plugin)

    def table() -> object:
        made = new_table("SETTING", "VALUE", "ORIGIN")
        for row in rows:
            made.add_row(cell(row.key), cell(row.value), cell(row.origin, "dim"))
        return made

    emit([row._asdict() for row in rows], output, table)  # type: ignore[arg-type]


@command.command("path")
@common_options
@click.pass_context
def path(ctx: click.Context) -> None:
    """Print the path of the settings file in use; exit code 1 if there is none."""
    file = session_of(ctx).config().file
    if file is None:
        raise CommandFailed(
            "there is no gearshift.toml here or above; the defaults apply",
            hint="gearshift init writes one",
        )
    click.echo(file)
