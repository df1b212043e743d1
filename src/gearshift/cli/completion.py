"""``gearshift completion``: the script that makes a shell complete commands and channels."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class

__all__ = ["command"]

_COMPLETE_VARIABLE = "_GEARSHIFT_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    bash and zsh: [bold]eval "$(gearshift completion bash)"[/bold] in the shell's start-up file.
    fish: [bold]gearshift completion fish | source[/bold]
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(ctx.find_root().command, {}, "gearshift", _COMPLETE_VARIABLE).source())
