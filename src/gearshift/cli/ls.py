"""``gearshift ls``: channels, their groups and what waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift.bus import Bus
from gearshift.cli.context import Session, complete_channel, note, with_session
from gearshift.cli.errors import print_error
from gearshift.cli.output import Record, cell, emit, new_table, output_option
from gearshift.errors import ConnectionFailed, GearshiftError
from gearshift.exit_codes import exit_code

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["age", "command"]

_NUMBERS = ("ready", "in_flight", "lag", "oldest_age_s", "consumers")
_HEADERS = ("READY", "IN FLIGHT", "LAG", "OLDEST", "CONSUMERS")


@click.command("ls")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...", shell_complete=complete_channel)
@output_option
@with_session
def command(session: Session, channels: tuple[str, ...], output: str) -> int:
    """List channels, their groups and what waits for them.

    Without CHANNEL these are the configured ones. On a queue READY waits and IN FLIGHT is being
    worked on; on a stream LAG is what a group has not read. n/a: the broker does not tell.
    [bold]gearshift top[/bold] shows it again and again.
    """
    names = channels or tuple(session.config().channels)
    if not names:
        note("no channel is configured; name those to list: gearshift ls CHANNEL...")
    with session.bus() as bus:
        records = list(_records(bus, names))
    emit(records, output, lambda: _table(records))
    errors = [error for record in records if isinstance(error := record["error"], GearshiftError)]
    for error in errors:
        print_error(error, session)
    return exit_code(errors[0]) if errors else 0


def _records(bus: Bus, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A record per group; one without group for a channel that has none or cannot be looked at."""
    for name in names:
        record: dict[str, Any] = {"channel": name, "semantics": None, "exists": None}
        record |= {"group": None, **dict.fromkeys(_NUMBERS), "error": None}
        try:
            record |= {"semantics": bus.semantics(name).value}
            bus.capabilities(name)
            bus.check_known(name)
            record |= {"exists": bus.exists(name)}
            states = bus.groups(name) if record["exists"] else ()
        except ConnectionFailed:
            raise  # of all channels
        except GearshiftError as error:
            yield record | {"error": error}
            continue
        for state in states:
            numbers = {field: getattr(state, field) for field in _NUMBERS}
            yield record | {"group": state.group} | numbers
        if not states:
            yield record


def _table(records: Sequence[Record]) -> Table:
    table = new_table("CHANNEL", "SEMANTICS", "GROUP", *_HEADERS, right=_HEADERS)
    shown = None
    for record in records:
        name = record["channel"]
        first = (cell(name), cell(record["semantics"])) if name != shown else (cell(""), cell(""))
        shown = name
        table.add_row(*first, *_state(record))
    return table


def _state(record: Record) -> list[Any]:
    if record["error"] is not None:
        return [cell("not usable", "red")]
    if not record["exists"]:
        return [cell("does not exist", "yellow")]
    if record["group"] is None:
        return [cell("no group yet", "dim")]
    return [cell(record["group"]), *(cell(_number(field, record[field])) for field in _NUMBERS)]


def _number(field: str, value: Any) -> object:
    return age(value) if field == "oldest_age_s" and value is not None else value


def age(seconds: float) -> str:
    """``seconds`` in its two largest units: 3.2s, 4m05s, 7h12m, 3d04h."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if hours == 0:
        return f"{minutes}m{int(seconds) % 60:02}s"
    return f"{hours}h{minutes % 60:02}m" if days == 0 else f"{days}d{hours % 24:02}h"
