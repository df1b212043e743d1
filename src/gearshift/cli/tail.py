"""``gearshift tail``: messages as they come, without taking them from anybody."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import rich_click as click

from gearshift.bus import Bus
from gearshift.cli.context import common_options, complete_channel, note, session_of
from gearshift.cli.output import json_line
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import DecodeError, NotSupported
from gearshift.message import Headers, Semantics

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
@common_options
@click.pass_context
def command(
    ctx: click.Context, channel: str, start: str | None, most: int | None, idle: float | None
) -> None:
    """Print messages as they come, one JSON object per line.

    It has a group of its own, so no other consumer misses anything. A queue has no history: there
    it shows what is sent from now on. A body that is neither JSON nor text is printed with
    "encoding": "base64". [bold]gearshift send --envelope[/bold] reads these lines.
    """
    with session_of(ctx).bus() as bus, _consumer(bus, channel, start) as inbox:
        inbox.ready()
        note(f"waiting for messages of {channel!r} ({bus.semantics(channel)}); Ctrl-C ends")
        for number, delivery in enumerate(inbox.iterate(idle_timeout_s=idle), 1):
            delivery.ack()  # for our own group only, which goes when we do
            click.echo(json_line(_record(delivery)))
            if number == most:
                return


def _consumer(bus: Bus, channel: str, start: str | None) -> Consumer[Any]:
    if start == "earliest" and bus.semantics(channel) is Semantics.QUEUE:
        raise NotSupported(
            "a queue keeps no history to start from",
            hint="leave --from out to see what is sent from now on, or use a stream",
            backend=bus.backend,
            channel=channel,
        )
    return bus.consumer(channel, ephemeral=True, start=start or "latest", create=False)


def _record(delivery: Delivery[Any]) -> dict[str, Any]:
    value, encoding = _value(delivery)
    message, position = delivery.message, delivery.position
    record = {
        "id": message.id,
        "key": message.key,
        "headers": _headers(message.headers),
        "timestamp": _timestamp(message.timestamp_ms),
        "content_type": message.content_type,
        "value": value,
        "encoding": encoding,
        "position": {"partition": position.partition, "offset": position.offset}
        if position
        else None,
        "attempt": delivery.attempt,
    }
    if encoding is None:
        del record["encoding"]
    return record


def _value(delivery: Delivery[Any]) -> tuple[Any, str | None]:
    """The body as JSON has it, and its encoding if it had to be wrapped."""
    try:
        value = delivery.value
    except DecodeError:
        value = delivery.body
    if not isinstance(value, bytes):
        return value, None
    try:  # plain text of a sender that did not say so
        return value.decode(), None
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"


def _headers(headers: Headers) -> dict[str, Any]:
    """Names to values; to a list of values where a name repeats."""
    return {name: values[0] if len(values) == 1 else values for name, values in _grouped(headers)}


def _grouped(headers: Headers) -> Iterator[tuple[str, list[Any]]]:
    for name in headers:
        yield name, [_header(value) for value in headers.getall(name)]


def _header(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _timestamp(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a foreign sender's nonsense
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
