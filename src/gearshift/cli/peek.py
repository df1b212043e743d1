"""``gearshift peek``: what waits for a group of a queue, given back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rich_click as click

from gearshift.bus import Bus
from gearshift.capabilities import Prefetch
from gearshift.cli.context import Session, complete_channel, note, with_session
from gearshift.cli.output import json_line
from gearshift.cli.record import record_of
from gearshift.delivery import Delivery
from gearshift.errors import NotSupported
from gearshift.message import Semantics

__all__ = ["command", "look"]

#: Longest wait for one more message, in seconds: what is there comes at once.
_IDLE_S = 1.0


@click.command("peek")
@click.argument("channel", shell_complete=complete_channel)
@click.option("--group", metavar="NAME", help="The group to look at; else the default one.")
@click.option(
    "--max", "most", type=click.IntRange(1, 10_000), default=10, show_default=True, metavar="N",
    help="How many at most.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Also where a look costs messages an attempt.")
@with_session
def command(session: Session, channel: str, group: str | None, most: int, yes: bool) -> None:
    """Print what waits for a group of a queue, one JSON object per line.

    The messages are taken in hand, shown and given back, so meanwhile no other consumer gets them.
    Nothing is settled. Where a broker hands out whole batches and counts each as an attempt, only
    --yes does it. To look at a stream: replay.
    """
    with session.bus() as bus:
        if not yes:
            _require_harmless(bus, channel)
        shown = 0
        for delivery in look(bus, channel, group, most):
            click.echo(json_line(record_of(delivery)))
            shown += 1
    note(
        f"{shown:,} shown and given back" if shown else "nothing waits, or other consumers have it"
    )


def _require_harmless(bus: Bus, channel: str) -> None:
    """Raise NotSupported where a look could make others give messages up."""
    if bus.capabilities(channel).prefetch is Prefetch.STRICT:
        return
    if bus.semantics(channel) is Semantics.QUEUE:
        raise NotSupported(
            f"a look at {channel!r} takes whole batches here, and may cost each message "
            "one of its attempts",
            hint="--yes looks all the same",
        )


def look(bus: Bus, channel: str, group: str | None, most: int) -> Iterator[Delivery[Any]]:
    """Up to ``most`` messages that wait for ``group`` of a queue; given back at the end."""
    if bus.semantics(channel) is Semantics.STREAM:
        raise NotSupported(
            "a stream has positions, not messages that wait for a group",
            hint=f"gearshift replay {channel} prints it and takes nothing",
            backend=bus.backend,
            channel=channel,
        )
    with bus.inspect(channel, group=group, prefetch=most) as consumer:
        consumer.ready()
        for _ in range(most):
            received = consumer.receive(timeout_s=_IDLE_S)
            if not received:
                return
            yield received[0]
