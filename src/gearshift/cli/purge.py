"""``gearshift purge``: throw away what waits for a group. A dry run until --yes."""

from __future__ import annotations

import rich_click as click

from gearshift.bus import Bus
from gearshift.cli.context import Session, complete_channel, end_dry_run, with_session, yes_option
from gearshift.errors import NotSupported, UnknownChannel, UnknownGroup
from gearshift.message import DEFAULT_GROUP

__all__ = ["command", "purge_group"]


@click.command("purge")
@click.argument("channel", shell_complete=complete_channel)
@click.option("--group", metavar="NAME", help="The group whose messages go; else the default one.")
@yes_option
@with_session
def command(session: Session, channel: str, group: str | None, yes: bool) -> None:
    """Throw away what waits for a group of a channel.

    Without --yes it only says what would go. Other groups keep their messages.
    """
    with session.bus() as bus:
        purge_group(bus, channel, group, yes=yes)


def purge_group(bus: Bus, channel: str, group: str | None, *, yes: bool) -> None:
    """Purge and say how much went; without ``yes`` only say what would."""
    count = _waiting(bus, channel, group)
    name = f"group {group or DEFAULT_GROUP!r} of {channel!r}"
    if yes:
        gone = bus.purge(channel, group)
        click.echo(f"purged {_messages(count if gone is None else gone)} of {name}")
        return
    click.echo(f"would purge {_messages(count)} of {name}")
    end_dry_run("nothing was purged")


def _waiting(bus: Bus, channel: str, group: str | None) -> int | None:
    """The number of messages that a purge would take; None if the broker does not tell."""
    bus.check_known(channel)
    if not bus.capabilities(channel).purge:
        raise NotSupported("cannot be purged", backend=bus.backend, channel=channel)
    if not bus.exists(channel):
        raise UnknownChannel(
            "there is no such channel, so there is nothing to purge",
            hint="gearshift ls shows those that are configured",
            backend=bus.backend,
            channel=channel,
        )
    states = {state.group: state for state in bus.groups(channel)}
    state = states.get(group or DEFAULT_GROUP)
    if state is None:
        known = ", ".join(states) or "none"
        raise UnknownGroup(
            f"there is no group {group or DEFAULT_GROUP!r}",
            hint=f"choose one with --group: {known}",
            backend=bus.backend,
            channel=channel,
        )
    return state.waiting


def _messages(count: int | None) -> str:
    if count is None:
        return "all messages (the broker does not tell how many)"
    return "1 message" if count == 1 else f"{count:,} messages"
