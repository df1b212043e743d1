"""``gearshift config``: what is set, and where it comes from."""

from __future__ import annotations

from typing import Any

import rich_click as click

from gearshift.cli.context import Session, common_options, note, with_session
from gearshift.cli.errors import CommandFailed
from gearshift.cli.output import cell, emit, new_table, output_option
from gearshift.errors import PluginError

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Show the settings and where they come from."""


@command.command("show")
@click.option("--app", "target", metavar="MODULE:APP", help="Show the order of its plugins, too.")
@output_option
@with_session
def show(session: Session, target: str | None, output: str) -> None:
    """Every effective setting and its origin; secrets masked.

    Only the selected profile is shown: choose another one with --profile. The hooks are followed by
    the plugins that they call, in their order: around a handler the first is the outermost.
    """
    settings = session.config()
    try:
        plugin = settings.load_plugin()
    except PluginError as error:
        plugin = None
        note(f"note: defaults of the backend are missing here: {error}")
    rows = [row._asdict() for row in settings.rows(plugin)] + _hooks(target)
    shown = ((row["key"], row["value"], cell(row["origin"], "dim")) for row in rows)
    emit(rows, output, lambda: new_table("SETTING", "VALUE", "ORIGIN", rows=shown))


def _hooks(target: str | None) -> list[dict[str, Any]]:
    """A row for each hook that plugins implement, and for each plugin that cannot be used."""
    from gearshift.hooks.registry import check_installed, load_hooks
    from gearshift.worker.loading import load_app

    checked = check_installed()
    given = load_app(target).plugins if target else ()
    hooks = load_hooks(given, [entry for entry, error in checked if error is None])
    rows = [
        {"key": f"hooks.{hook}", "value": ", ".join(names), "origin": "plugins, in their order"}
        for hook, names in hooks.order().items()
    ]
    return rows + [
        {"key": f"plugins.{entry.name}", "value": f"cannot be used: {error}", "origin": str(entry)}
        for entry, error in checked
        if error is not None
    ]


@command.command("settings")
@click.argument("backend", required=False)
@output_option
@common_options
def settings(backend: str | None, output: str) -> None:
    """Every setting that there is: its type, its default and what it does.

    Those of a channel; with BACKEND, those of a profile, and of a channel's native table, for it.
    """
    from gearshift.config.description import described

    rows = [
        {"setting": f"{table}.{one.name}"} | one._asdict()
        for table, found in described(backend)
        for one in found
    ]
    plain = ("setting", "type", "default")
    shown = (
        (*(row[field] for field in plain), " ".join(row["effect"].replace("``", "").split()))
        for row in rows
    )
    emit(rows, output, lambda: new_table("SETTING", "TYPE", "DEFAULT", "EFFECT", rows=shown))


@command.command("path")
@with_session
def path(session: Session) -> None:
    """Print the path of the settings file in use; exit code 1 if there is none."""
    file = session.config().file
    if file is None:
        raise CommandFailed(
            "there is no gearshift.toml here or above; the defaults apply",
            hint="gearshift init writes one",
        )
    click.echo(file)
