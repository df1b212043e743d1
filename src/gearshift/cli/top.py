"""``gearshift top``: what goes on in channels, groups and handlers, live."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift.bus import Bus
from gearshift.cli.context import Session, complete_channel, note, with_session
from gearshift.cli.keys import Keys
from gearshift.cli.ls import age
from gearshift.cli.output import cell, emit, new_table, output_option, terminal
from gearshift.errors import ConnectionFailed, UsageError
from gearshift.exit_codes import exit_code
from gearshift.operations.scraping import MetricsPages, page_url
from gearshift.operations.top import Look, Row, Top
from gearshift.telemetry.depths import TIMEOUT_S

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["command", "screen"]

_NUMBERS = (
    "IN/S", "OUT/S", "BACKLOG", "+/S", "OLDEST", "CONS", "BUSY", "RETRY", "DEAD"
)  # fmt: skip
_POLL_S = 0.1  # for a key
_NARROW = 100  # a terminal whose columns names need
_LOGGED = 3  # lines of the log that are shown with a look

#: What ``s`` sorts by, one after the other.
_ORDERS: dict[str, Callable[[Row], Any]] = {
    "channel": lambda row: 0,
    "backlog": lambda row: -(row.waiting or 0),
    "oldest": lambda row: -(row.oldest_age_s or 0),
}


@click.command("top")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...", shell_complete=complete_channel)
@click.option(
    "--metrics", "addresses", multiple=True, metavar="[HOST:]PORT",
    help="Where a service serves its metrics, or a URL; once for each process.",
)  # fmt: skip
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, metavar="S",
    help="Look every S seconds.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Look twice, for the rates, print that and end.")
@output_option
@with_session
def command(
    session: Session,
    channels: tuple[str, ...],
    addresses: tuple[str, ...],
    interval: float,
    once: bool,
    output: str,
) -> int:
    """Show what goes on in channels, groups and handlers.

    Without CHANNEL these are the configured ones. The broker tells the BACKLOG (on a stream the
    lag) and by how much it grows a second, the OLDEST, CONSumers, and DEAD letters that wait. What
    comes IN and goes OUT, RETRY a second, and how many messages handlers are BUSY with, are told by
    services that run with --metrics: name them with --metrics too. A dash is what nobody tells.
    Keys: [bold]q[/bold] ends, [bold]s[/bold] sorts by channel, backlog or oldest, [bold]p[/bold]
    pauses. A broker that is down is waited for, and so is a channel that is configured and does not
    exist yet.
    """
    names = channels or tuple(session.config().channels)
    if not names:
        note("no channel is configured; name those to show: gearshift top CHANNEL...")
    pages = MetricsPages([page_url(address) for address in addresses])
    with session.bus() as bus:
        for name in channels:
            with suppress(ConnectionFailed):  # which is told with what services tell
                bus.check_known(name, timeout_s=TIMEOUT_S)
        top = Top(bus, names, pages)
        if once:
            return _once(bus, top, interval, output)
        if output == "table" and terminal().is_terminal:
            _live(session, bus, top, interval)
            return 0
        if output == "json":
            raise UsageError("json is for --once", hint="-o jsonl prints a line for each look")
        while True:
            _print(bus, top.look(), output)
            time.sleep(interval)


def _once(bus: Bus, top: Top, interval_s: float, output: str) -> int:
    top.look()
    time.sleep(interval_s)
    look = top.look()
    _print(bus, look, output)
    return 0 if look.broker_error is None else exit_code(look.broker_error)


def _print(bus: Bus, look: Look, output: str) -> None:
    record = {
        "profile": bus.profile,
        "backend": bus.backend,
        "time": time.time(),
        "problems": look.problems,
        "groups": [asdict(row) for row in look.rows],
    }
    emit(record, output, lambda: _table(look.rows))
    if output == "table":
        for problem in look.problems:
            note(problem)


def _live(session: Session, bus: Bus, top: Top, interval_s: float) -> None:
    """Until ``q`` or Ctrl-C. Looks are taken on another thread: keys are not kept waiting."""
    from rich.live import Live

    look: Look | None = None
    orders, order, paused = list(_ORDERS), 0, False
    logged: deque[str] = deque(maxlen=_LOGGED)
    session.say = logged.append  # on stderr it would lie across the picture
    with (
        Keys() as keys,
        ThreadPoolExecutor(1) as pool,
        Live(console=terminal(), auto_refresh=False, screen=True) as live,
    ):
        coming, due = pool.submit(top.look), time.monotonic() + interval_s
        while (key := keys.read(_POLL_S)) != "q":
            order = (order + (key == "s")) % len(orders)
            paused ^= key == "p"
            if coming.done() and not paused:
                look = coming.result()
                look = replace(look, problems=[*look.problems, *logged])
                logged.clear()
                if time.monotonic() >= due:
                    coming, due = pool.submit(top.look), time.monotonic() + interval_s
            live.update(screen(bus, look, interval_s, orders[order], paused), refresh=True)


def screen(
    bus: Bus, look: Look | None, interval_s: float, order: str, paused: bool
) -> RenderableType:
    """All that is on the screen at one moment; ``look`` is None before the first one."""
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble(
        ("gearshift top", "bold"),
        f"  {bus.profile} on {bus.backend}  {time.strftime('%H:%M:%S')}  ",
        ("paused" if paused else f"every {interval_s:g} s", "yellow" if paused else ""),
    )
    keys = Text(f"q end   s sort (by {order})   p {'go on' if paused else 'pause'}", style="dim")
    if look is None:
        return Group(head, "", "looking ...", "", keys)
    rows = sorted(look.rows, key=_ORDERS[order])
    problems = [cell(problem, "red") for problem in look.problems]
    return Group(head, "", _table(rows), *([""] if problems else []), *problems, "", keys)


def _table(rows: Sequence[Row]) -> RenderableType:
    table = new_table("CHANNEL", "GROUP", *_NUMBERS, right=_NUMBERS)
    if terminal().width < _NARROW:
        table.padding = (0, 1, 0, 0)
    above: str | None = None
    for row in rows:
        of_channel = row.channel != above  # what is of the channel stands in the first of its rows
        above = row.channel
        full = row.busy is not None and row.handler_limit and row.busy >= row.handler_limit
        table.add_row(
            cell(row.channel if of_channel else ""),
            _known(row.group),
            _rate(row.sent_per_s) if of_channel else cell(""),
            _rate(row.acked_per_s),
            _known(row.waiting),
            _rate(row.change_per_s, sign="+"),
            _known(None if row.oldest_age_s is None else age(row.oldest_age_s)),
            _known(row.consumers, "red" if row.waiting and row.consumers == 0 else ""),
            _known(_busy(row), "yellow" if full else ""),
            _rate(row.retried_per_s, "yellow" if row.retried_per_s else ""),
            _known(row.dead_letters, "red" if row.dead_letters else "") if of_channel else cell(""),
        )
    return table


def _busy(row: Row) -> str | int | None:
    return f"{row.busy}/{row.handler_limit}" if row.handler_limit else row.busy


def _rate(per_s: float | None, style: str = "", *, sign: str = "") -> Text:
    if per_s is None:
        return _known(None)
    digits = 0 if abs(per_s) >= 100 else 1
    return cell(f"{per_s:{sign if per_s else ''},.{digits}f}", style)


def _known(value: object, style: str = "") -> Text:
    """As ``cell``, but for what is unknown: a dash."""
    return cell("-", "dim") if value is None else cell(value, style)
