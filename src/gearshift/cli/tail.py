"""``gearshift tail``: messages as they come, without taking them from anybody."""

from __future__ import annotations

from typing import Any

import rich_click as click

from gearshift.bus import Bus
from gearshift.cli.context import Session, complete_channel, note, with_session
from gearshift.cli.output import json_line
from gearshift.cli.record import record_of
from gearshift.consumer import Consumer, StartName
from gearshift.errors import NotSupported
from gearshift.message import Semantics

__all__ = ["command"]


@click.command("tail")
@click.argument("channel", shell_complete=complete_channel)
@click.option(
    "--from", "start", type=click.Choice(["earliest", "latest"]),
    help="Where to begin in a stream; latest if not given.",
)  # fmt: skip
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="End after N messages.")
@click.option(
    "--idle", type=click.FloatRange(min=0, min_open=True), metavar="S",
    help="End when nothing came for S seconds.",
)  # fmt: skip
@with_session
def command(
    session: Session, channel: str, start: StartName | None, most: int | None, idle: float | None
) -> None:
    """Print messages as they come, one JSON object per line.

    It has a group of its own, so no other consumer misses anything. A queue has no history: there
    it shows what is sent from now on. A body that is neither JSON nor text is printed with
    "encoding": "base64". [bold]gearshift send --envelope[/bold] reads these lines.
    """
    with session.bus() as bus, _consumer(bus, channel, start) as consumer:
        consumer.ready()
        note(f"waiting for messages of {channel!r} ({bus.semantics(channel)}); Ctrl-C ends")
        for number, delivery in enumerate(consumer.iterate(idle_timeout_s=idle), 1):
            delivery.ack()  # for our own group only, which goes when we do
            click.echo(json_line(record_of(delivery)))
            if number == most:
                return


def _consumer(bus: Bus, channel: str, start: StartName | None) -> Consumer[Any]:
    if start == "earliest" and bus.semantics(channel) is Semantics.QUEUE:
        raise NotSupported(
            "a queue keeps no history to start from",
            hint="leave --from out to see what is sent from now on, or use a stream",
            backend=bus.backend,
            channel=channel,
        )
    return bus.consumer(channel, ephemeral=True, start=start or "latest", create=False)
