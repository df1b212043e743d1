"""``gearshift replay``: what a stream holds, from any place on."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import rich_click as click

from gearshift.bus import Bus
from gearshift.cli.context import Session, complete_channel, with_session
from gearshift.cli.output import json_line
from gearshift.cli.record import record_of
from gearshift.driver import Start, StartAt
from gearshift.errors import NotSupported
from gearshift.message import Semantics

__all__ = ["command", "start_option"]

_OFFSET = re.compile(r"(\d+):(\d+)")
_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def start_option(_ctx: click.Context, _param: click.Parameter, text: str) -> Start:
    """``earliest``, ``PARTITION:OFFSET``, a moment in ISO 8601, or an age such as ``15m``."""
    if text == StartAt.EARLIEST:
        return Start()
    if place := _OFFSET.fullmatch(text):
        return Start(StartAt.OFFSET, {int(place[1]): int(place[2])})
    moment = _moment(text)
    if moment is None or moment.timestamp() < 0:
        raise click.BadParameter(
            f"{text!r} is not one of earliest, PARTITION:OFFSET, 2026-01-31T12:00:00, 15m"
        )
    return Start(StartAt.TIME, time_ms=int(moment.timestamp() * 1000))


@click.command("replay")
@click.argument("channel", shell_complete=complete_channel)
@click.option(
    "--from", "start", default="earliest", show_default=True, metavar="WHERE",
    callback=start_option,
    help="earliest, PARTITION:OFFSET, a moment (ISO 8601), or an age: 30s, 15m, 2h, 1d.",
)  # fmt: skip
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="End after N messages.")
@click.option(
    "--idle", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True,
    metavar="S", help="End when nothing came for S seconds.",
)  # fmt: skip
@with_session
def command(session: Session, channel: str, start: Start, most: int | None, idle: float) -> None:
    """Print what a stream holds, one JSON object per line, and end.

    It reads for itself: no group's position is touched. PARTITION:OFFSET prints that partition
    only. [bold]gearshift send --envelope[/bold] reads these lines.
    """
    with session.bus() as bus:
        _require_stream(bus, channel)
        with bus.consumer(channel, ephemeral=True, start=start, create=False) as consumer:
            consumer.ready()
            printed = 0
            for delivery in consumer.iterate(idle_timeout_s=idle):
                delivery.ack()  # for our own group only, which goes when we do
                position = delivery.position
                if start.positions and position and position.partition not in start.positions:
                    continue
                click.echo(json_line(record_of(delivery)))
                printed += 1
                if printed == most:
                    return


def _require_stream(bus: Bus, channel: str) -> None:
    bus.check_known(channel)
    if bus.semantics(channel) is not Semantics.STREAM:
        raise NotSupported(
            "a queue keeps no history to replay",
            hint=f"gearshift peek {channel} shows what waits; for history use a stream",
            backend=bus.backend,
            channel=channel,
        )


def _moment(text: str) -> datetime | None:
    """A moment in ISO 8601, local time if it names no zone, or so long ago."""
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return None
