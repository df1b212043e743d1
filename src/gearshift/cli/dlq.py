"""``gearshift dlq``: dead letters, seen, brought back, or thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift._core.consuming.dead_letters import Death
from gearshift.bus import Bus
from gearshift.cli.context import (
    Session,
    complete_channel,
    end_dry_run,
    note,
    with_session,
    yes_option,
)
from gearshift.cli.ls import age
from gearshift.cli.output import cell, emit, new_table, output_option
from gearshift.cli.peek import look
from gearshift.cli.purge import purge_group
from gearshift.cli.record import record_of
from gearshift.delivery import Delivery
from gearshift.errors import UnknownChannel
from gearshift.message import Semantics
from gearshift.operations.portability import PortabilityReport
from gearshift.operations.redrive import channels_of, dead_letter_channel, redrive

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["command"]

#: Longest wait for one more letter, in seconds.
_IDLE_S = 2.0

#: How many letters are looked at, for what another broker does not take or for some of many.
_LOOKED_AT = 1000

_group_option = click.option(
    "--group", metavar="NAME", help="Only what died in this group; else in any."
)


@click.group("dlq")
def command() -> None:
    """Look at dead letters, bring them back, or throw them away.

    CHANNEL is the channel that they came from, not the one that holds them.
    """


@command.command("list")
@output_option
@with_session
def list_(session: Session, output: str) -> None:
    """Where each configured channel's dead letters are, and how many wait there."""
    with session.bus() as bus:
        records = [_state(bus, name) for name in bus.config.channels]
    if not records:
        note("no channel is configured")

    def table() -> Table:
        made = new_table("CHANNEL", "DEAD LETTERS IN", "WAITING", right=["WAITING"])
        for record in records:
            name = record["dead_letter"]
            count = record["waiting"] if record["exists"] else "none yet" if name else ""
            made.add_row(cell(record["channel"]), cell(name or "switched off"), cell(count))
        return made

    emit(records, output, table)


@command.command("show")
@click.argument("channel", shell_complete=complete_channel)
@_group_option
@click.option(
    "--max", "most", type=click.IntRange(1, 10_000), default=20, show_default=True, metavar="N",
    help="How many at most.",
)  # fmt: skip
@output_option
@with_session
def show(session: Session, channel: str, group: str | None, most: int, output: str) -> None:
    """What died, why, where and when. Nothing is settled.

    json and jsonl have the whole messages.
    """
    with session.bus() as bus:
        source = _existing(bus, channel)
        is_mixed = group is not None or len(channels_of(bus, source)) > 1
        limit = max(most, _LOOKED_AT) if is_mixed else most
        letters = []
        for number, letter in enumerate(_letters(bus, source, limit), 1):
            death = Death.of(letter.message)
            if death.channel in (None, channel) and group in (None, death.group):
                letters.append((record_of(letter), letter.key, death))
                if len(letters) == most:
                    break
            if is_mixed and number == limit:
                note(f"only the first {limit:,} were looked at")

    def table() -> Table:
        made = new_table("ID", "KEY", "GROUP", "ATTEMPTS", "AGE", "REASON", right=["ATTEMPTS"])
        for record, key, death in letters:
            since = None if death.time_ms is None else age(time.time() - death.time_ms / 1000)
            made.add_row(
                *map(cell, (record["id"], key, death.group, death.attempts, since, death.reason))
            )
        return made

    emit([record for record, _, _ in letters], output, table)


@command.command("redrive")
@click.argument("channel", shell_complete=complete_channel)
@_group_option
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="How many at most.")
@click.option(
    "--to", "target", metavar="PROFILE",
    help="To the channel of that name on this profile's broker, after a switch.",
)  # fmt: skip
@yes_option
@with_session
def redrive_(
    session: Session,
    channel: str,
    group: str | None,
    most: int | None,
    target: str | None,
    yes: bool,
) -> None:
    """Send dead letters to their channel again, each for the group in which it died.

    They keep id, key, body and headers. Each is settled once it is stored there: after a failure
    run it again, and nothing is lost. Without --yes it only says what would go, and with --to what
    of the first 1,000 the other broker does not take.
    """
    with session.bus() as bus, session.bus(target) if target else nullcontext() as into:
        source = _existing(bus, channel)
        where = f"{channel!r} on {target}" if target else repr(channel)
        if not yes:
            count = bus.dead_letters(source)
            some = "dead letters" if count is None else f"up to {min(count, most or count):,}"
            click.echo(f"would send {some} of {source!r} to {where} again")
            if into is not None:
                portability = PortabilityReport(into.backend)
                for letter in _letters(bus, source, min(most or _LOOKED_AT, _LOOKED_AT)):
                    portability.add(letter.message)
                for line in portability.lines():
                    click.echo(line)
            end_dry_run("nothing was redriven")
            return
        done = redrive(bus, channel, into=into, group=group, most=most, idle_timeout_s=_IDLE_S)
    click.echo(f"redrove {done.moved:,} of {source!r} to {where}")
    if done.left:
        note(
            f"{done.left:,} were left: of another channel or group, of a group that the queue does "
            "not have any more, newer than this command, or refused"
        )
    if done.elsewhere is None and most is None:
        note(f"this broker does not tell what other consumers of {source!r} have not settled")
    elif done.elsewhere:
        note(
            f"{done.elsewhere:,} did not come: another consumer of {source!r} has them, or has "
            "settled them; run it again once it has ended"
        )
    if done.refusal is not None:
        raise done.refusal


@command.command("purge")
@click.argument("channel", shell_complete=complete_channel)
@yes_option
@with_session
def purge(session: Session, channel: str, yes: bool) -> None:
    """Throw away all dead letters of a channel.

    Without --yes it only says how many would go.
    """
    with session.bus() as bus:
        purge_group(bus, _existing(bus, channel), None, yes=yes)


def _state(bus: Bus, channel: str) -> dict[str, Any]:
    source = bus.config.channel(channel).dead_letter_name(channel)
    exists = source is not None and bus.exists(source)
    count = bus.dead_letters(source) if exists and source is not None else None
    return {"channel": channel, "dead_letter": source, "exists": exists, "waiting": count}


def _existing(bus: Bus, channel: str) -> str:
    bus.check_known(channel)
    source = dead_letter_channel(bus, channel)
    if not bus.exists(source):
        raise UnknownChannel(
            "there are no dead letters",
            hint="gearshift dlq list shows where there are some",
            backend=bus.backend,
            channel=source,
        )
    return source


def _letters(bus: Bus, source: str, most: int) -> Iterator[Delivery[Any]]:
    if bus.semantics(source) is Semantics.QUEUE:
        yield from look(bus, source, None, most)
        return
    with bus.consumer(source, ephemeral=True, create=False) as consumer:
        consumer.ready()
        for number, letter in enumerate(consumer.iterate(idle_timeout_s=_IDLE_S), 1):
            letter.ack()  # for our own group only, which goes when we do
            yield letter
            if number == most:
                return
