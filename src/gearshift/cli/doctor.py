"""``gearshift doctor``: what works, what does not, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator

import rich_click as click

from gearshift.cli.context import Session, complete_channel, with_session
from gearshift.cli.output import cell, emit, output_option, show
from gearshift.exit_codes import exit_code
from gearshift.operations.cleanup import sigterm_raises
from gearshift.operations.doctor import Check, Status, examine

__all__ = ["command"]

_STYLES = {
    Status.OK: "green",
    Status.WARNING: "yellow",
    Status.FAILED: "bold red",
    Status.NOT_RUN: "dim",
    Status.SKIPPED: "dim",
}


_FIELDS = ("step", "status", "detail", "subject", "hint")


@click.command("doctor")
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...", shell_complete=complete_channel)
@click.option(
    "--no-round-trip", is_flag=True, help="Leave out sending and receiving a message."
)  # fmt: skip
@output_option
@with_session
@sigterm_raises()
def command(session: Session, channels: tuple[str, ...], no_round_trip: bool, output: str) -> int:
    """Check everything from the settings to a round trip.

    Steps: config, plugin, tcp, auth, topology, copies, round trip.

    Without CHANNEL all configured ones are checked. Nothing is created, but for the round trip's
    own channel, which is deleted again. The exit code is that of the first failure: 2 settings,
    3 unreachable, 4 a capability is missing.
    """
    checks = examine(
        session.config_path,
        profile=session.profile,
        channels=channels,
        round_trip=not no_round_trip,
    )
    done = list(checks) if output != "table" else list(_shown(checks))
    if output != "table":
        emit([_record(check) for check in done], output, lambda: "")
    return next((exit_code(check.error) for check in done if check.error is not None), 0)


def _record(check: Check) -> dict[str, object]:
    return {field: getattr(check, field) for field in _FIELDS}


def _shown(checks: Iterator[Check]) -> Iterator[Check]:
    """Print each check as soon as it is done."""
    from rich.table import Table

    for check in checks:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=10)
        table.add_column(width=7)
        table.add_column(overflow="fold")
        table.add_row(
            cell(check.step), cell(check.status.value, _STYLES[check.status]), cell(check.detail)
        )
        if check.hint:
            table.add_row("", "", cell(f"fix: {check.hint}", "cyan"))
        show(table)
        yield check
