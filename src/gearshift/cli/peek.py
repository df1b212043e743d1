"""``gearshift peek``: what waits for a group of a queue, given back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rich_click as click

from gearshift.bus import Bus
from gearshift.cli.context import common_options, complete_channel, note, session_of
from gearshift.cli.output import json_line
from gearshift.cli.record import record_of
from gearshift.delivery import Delivery
from gearshift.errors import NotSupported
from gearshift.message import Semantics

__all__ = ["command", "waiting"]

#: Longest wait for one more message, in seconds: what is there comes at once.
_IDLE_S = 1.0


@click.command("peek")
@click.argument("channel", shell_complete=complete_channel)
@click.option("--group", metavar="NAME", help="The group to look at; else the default one.")
@click.option(
    "--max", "most", type=click.IntRange(1, 10_000), default=10, show_default=True, metavar="N",
    help="How many at most.",
)  # fmt: skip
@common_options
@click.pass_context
def command(ctx: click.Context, channel: str, group: str | None, most: int) -> None:
    """Print what waits for a group of a queue, one JSON object per line.

    The messages are taken in hand, shown and given back, so meanwhile no other consumer gets them,
    and a broker may count it as a delivery. Nothing is settled. To look at a stream: replay.
    """
    with session_of(ctx).bus() as bus:
        shown = 0
        for delivery in waiting(bus, channel, group, most):
            click.echo(json_line(record_of(delivery)))
            shown += 1
    note(f"{shown:,} shown and given back" if shown else "nothing waits, or others have it in hand")


def waiting(bus: Bus, channel: str, group: str | None, most: int) -> Iterator[Delivery[Any]]:
    """Up to ``most`` messages that wait for ``group`` of a queue; given back at the end."""
    if bus.semantics(channel) is Semantics.STREAM:
        raise NotSupported(
            "a stream has positions, not messages that wait for a group",
            hint=f"gearshift replay {channel} prints it and takes nothing",
            backend=bus.backend,
            channel=channel,
        )
    with bus.inspect(channel, group=group, prefetch=most) as inbox:
        for _ in range(most):
            received = inbox.receive(timeout_s=_IDLE_S)
            if not received:
                return
            yield received[0]
