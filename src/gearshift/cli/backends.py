"""``gearshift backends``: what is installed, and what each backend can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift.cli.context import Session, with_session
from gearshift.cli.errors import print_error
from gearshift.cli.output import cell, emit, new_table, output_option
from gearshift.plugins import PluginStatus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["command"]

#: Capabilities that decide between backends, as far as they fit into a line.
_KEY = ("order", "replay")


@click.command("backends")
@click.argument("name", required=False)
@output_option
@with_session
def command(session: Session, name: str | None, output: str) -> None:
    """List the installed backends, or all that one of them can do.

    With NAME: its full table of capabilities, for a queue and for a stream.
    """
    if name is None:
        _list(session, output)
    else:
        _one(name, output)


def _list(session: Session, output: str) -> None:
    from gearshift import plugins

    found = plugins.describe()
    emit([_record(status) for status in found], output, lambda: _overview(found))
    if output == "table":
        for status in found:
            if status.error is not None:
                print_error(status.error, session)


def _one(name: str, output: str) -> None:
    from gearshift import plugins

    plugins.load(name)  # raises what is wrong with it
    status = next(status for status in plugins.describe() if status.name == name)
    emit(_record(status), output, lambda: _details(status))


def _record(status: PluginStatus) -> dict[str, Any]:
    plugin = status.plugin
    return {
        "name": status.name,
        "distribution": status.distribution,
        "version": status.version,
        "summary": plugin.summary if plugin else None,
        "default_semantics": plugin.default_semantics.value if plugin else None,
        "capabilities": {kind.value: able.as_dict() for kind, able in plugin.capabilities.items()}
        if plugin
        else {},
        "error": str(status.error) if status.error else None,
    }


def _overview(found: list[PluginStatus]) -> RenderableType:
    table = new_table("BACKEND", "SEMANTICS", *(_words(field).upper() for field in _KEY), "FROM")
    for status in found:
        origin = f"{status.distribution} {status.version}"
        if status.plugin is None:
            blanks = [cell("")] * (len(_KEY) - 1)
            table.add_row(cell(status.name), cell("broken", "red"), *blanks, cell(""), cell(origin))
            continue
        if status.plugin.wrap is not None:
            blanks = [cell("")] * len(_KEY)
            table.add_row(cell(status.name), cell("over another"), *blanks, cell(origin, "dim"))
            continue
        first = True
        for kind, able in status.plugin.capabilities.items():
            values = able.as_dict()
            table.add_row(
                cell(status.name if first else ""),
                cell(kind.value, "bold" if kind is status.plugin.default_semantics else ""),
                *(_level(values[field]) for field in _KEY),
                cell(origin if first else "", "dim"),
            )
            first = False
    return table


def _details(status: PluginStatus) -> RenderableType:
    from rich.console import Group

    plugin = status.plugin
    assert plugin is not None  # or it would not have loaded
    head = cell(f"{status.name} ({status.distribution} {status.version}): {plugin.summary}")
    if plugin.wrap is not None:
        return Group(head, cell("its capabilities are those of the profile that it stands over"))
    able = {
        kind.value: capabilities.as_dict() for kind, capabilities in plugin.capabilities.items()
    }
    table = new_table("CAPABILITY", *(kind.upper() for kind in able))
    for field in next(iter(able.values())):
        table.add_row(cell(field), *(_level(values[field]) for values in able.values()))
    return Group(
        head,
        cell(f"a channel that names no semantics is a {plugin.default_semantics}"),
        cell(""),
        table,
    )


def _level(value: object) -> Text:
    if isinstance(value, bool):
        return cell("yes", "green") if value else cell("no", "yellow")
    return cell(_words(value) if isinstance(value, str) else value)


def _words(name: str) -> str:
    return name.replace("_", " ")
